"""Tokens and what their roles may do."""

import base64
import json
import stat
import time
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey, OKPKey

from rapport.common.auth import PERMISSIONS, ROLES, Principal, Signer, Verifier, write_secret
from rapport.common.errors import Forbidden, Invalid, Unauthorized

ODD_HEADERS = (
    b"[]",
    b"null",
    b'{"alg":{}}',
    b'{"alg":"Ed25519","kid":{}}',
    b'{"alg":"Ed25519","crit":1}',
    b'{"alg":"Ed25519","crit":[{}]}',
    b'{"alg":"RS256"}',
    b"\xff",
    b"[" * 5_000,
)


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer.open(tmp_path)


@pytest.fixture
def verifier(signer: Signer, tmp_path: Path) -> Verifier:
    return Verifier.from_file(tmp_path / "verify.json", "rapport", "rapport")


def test_a_minted_token_is_whose_it_says(signer: Signer, verifier: Verifier) -> None:
    principal = verifier.verify(signer.mint("ana", ["agent", "viewer"]))
    assert principal == Principal("ana", frozenset({"agent", "viewer"}))


def test_the_key_survives_and_only_its_owner_can_read_it(
    signer: Signer, verifier: Verifier, tmp_path: Path
) -> None:
    assert verifier.verify(Signer.open(tmp_path).mint("ana", ["agent"])).subject == "ana"
    assert stat.S_IMODE((tmp_path / "sign.json").stat().st_mode) == 0o600
    assert "d" not in json.loads((tmp_path / "verify.json").read_text())["keys"][0]


def test_expired_foreign_and_forged_tokens_are_refused(
    signer: Signer, verifier: Verifier, tmp_path: Path
) -> None:
    claims = {"iss": "rapport", "aud": "rapport", "sub": "x", "roles": ["admin"], "exp": 4e9}
    good = signer.mint("ana", ["agent"])
    head, body, signature = good.split(".")
    none = _base64(b'{"alg":"none"}')
    secret = OctKey.import_key(json.dumps((tmp_path / "verify.json").read_text()))
    for bad in (
        signer.mint("ana", ["agent"], days=-1),
        Signer.open(tmp_path / "other").mint("ana", ["agent"]),
        Signer.open(tmp_path, issuer="somebody").mint("ana", ["agent"]),
        Signer.open(tmp_path, audience="something").mint("ana", ["agent"]),
        f"{none}.{body}.",
        f"{none}.{body}.{signature}",
        f"{head}.{body}.{signature[:-4]}AAAA",
        jwt.encode({"alg": "HS256"}, claims, secret, algorithms=["HS256"]),
        *(f"{_base64(odd)}.{body}.{signature}" for odd in ODD_HEADERS),
        "not a token",
        "\ud800.x.y",
        "",
    ):
        with pytest.raises(Unauthorized):
            verifier.verify(bad)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic YTpi", "Bearer  "])
def test_without_a_bearer_token_nothing_goes(verifier: Verifier, header: str | None) -> None:
    with pytest.raises(Unauthorized):
        verifier.authorize(header, "case.read")


@pytest.mark.parametrize("action", sorted(PERMISSIONS))
def test_each_role_may_do_exactly_what_the_table_says(
    signer: Signer, verifier: Verifier, action: str
) -> None:
    for role in ROLES:
        header = f"Bearer {signer.mint('ana', [role])}"
        if role in PERMISSIONS[action]:
            assert verifier.authorize(header, action).subject == "ana"
        else:
            with pytest.raises(Forbidden):
                verifier.authorize(header, action)


def test_no_token_for_roles_that_do_not_exist(signer: Signer) -> None:
    for roles in (["emperor"], []):
        with pytest.raises(Invalid):
            signer.mint("ana", roles)


@pytest.mark.parametrize("roles", [None, "admin", {}, ["emperor"], [["admin"]], [{}], [1]])
def test_roles_that_are_none_are_refused(verifier: Verifier, tmp_path: Path, roles: object) -> None:
    key = OKPKey.import_key(json.loads((tmp_path / "sign.json").read_text()))
    claims = {"iss": "rapport", "aud": "rapport", "sub": "x", "roles": roles, "exp": 4e9}
    header = {"alg": "Ed25519", "kid": key.kid}
    with pytest.raises(Unauthorized, match="roles"):
        verifier.verify(jwt.encode(header, claims, key, algorithms=["Ed25519"]))


def test_a_remembered_token_expires_all_the_same(
    signer: Signer, verifier: Verifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = signer.mint("ana", ["agent"], days=1)
    verifier.verify(token)
    day_after_tomorrow = time.time() + 2 * 86_400
    monkeypatch.setattr(time, "time", lambda: day_after_tomorrow)
    with pytest.raises(Unauthorized):
        verifier.verify(token)


def test_a_lost_public_key_is_written_again(signer: Signer, tmp_path: Path) -> None:
    (tmp_path / "verify.json").unlink()
    Signer.open(tmp_path)
    again = Verifier.from_file(tmp_path / "verify.json", "rapport", "rapport")
    assert again.verify(signer.mint("ana", ["agent"])).subject == "ana"


def test_a_secret_is_written_whole_or_not_at_all_and_never_replaced(tmp_path: Path) -> None:
    with pytest.raises(UnicodeEncodeError):
        write_secret(tmp_path / "key", "half a secret \ud800")
    assert list(tmp_path.iterdir()) == []

    write_secret(tmp_path / "key", "a secret")
    with pytest.raises(FileExistsError):
        write_secret(tmp_path / "key", "another")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["a secret"]
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
