"""Tokens and what their roles may do."""

import base64
import json
import stat
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from rapport.common.auth import PERMISSIONS, ROLES, Principal, Signer, Verifier
from rapport.common.errors import Forbidden, Invalid, Unauthorized


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
    none = base64.urlsafe_b64encode(b'{"alg":"none"}').rstrip(b"=").decode()
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
        "not a token",
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
