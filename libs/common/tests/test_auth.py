"""Tokens and what their roles may do."""

import base64
import hmac
import json
import stat
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from joserfc import jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey

from rapport.common.auth import (
    PERMISSIONS,
    ROLES,
    Principal,
    Signer,
    Verifier,
    read_key_set,
    write_secret,
)
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
        f"{_base64(b'[' * 5_000)}.{body}.{signature}",
        "not a token",
        "\ud800.x.y",
        "",
    ):
        with pytest.raises(Unauthorized):
            verifier.verify(bad)


@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic YTpi", "Bearer  "])
async def test_without_a_bearer_token_nothing_goes(verifier: Verifier, header: str | None) -> None:
    with pytest.raises(Unauthorized):
        await verifier.authorize(header, "case.read")


@pytest.mark.parametrize("action", sorted(PERMISSIONS))
async def test_each_role_may_do_exactly_what_the_table_says(
    signer: Signer, verifier: Verifier, action: str
) -> None:
    for role in ROLES:
        header = f"Bearer {signer.mint('ana', [role])}"
        if role in PERMISSIONS[action]:
            assert (await verifier.authorize(header, action)).subject == "ana"
        else:
            with pytest.raises(Forbidden):
                await verifier.authorize(header, action)


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


# key sets

ED25519 = OKPKey.generate_key("Ed25519", auto_kid=True)
P256 = ECKey.generate_key("P-256", auto_kid=True)
RSA = RSAKey.generate_key(2048, auto_kid=True)
SECRET = OctKey.generate_key(256, auto_kid=True)


def short_rsa() -> dict[str, object]:
    with pytest.warns(SecurityWarning):
        return published(RSAKey.generate_key(1024))


def forged(secret: bytes, kid: str | None) -> str:
    """Sign with HS256 what a library refuses to: with text that everybody can read."""
    head = _base64(json.dumps({"alg": "HS256", "kid": kid}).encode())
    body = signed(RSA, "RS256").split(".")[1]
    mac = hmac.digest(secret, f"{head}.{body}".encode(), "sha256")
    return f"{head}.{body}.{_base64(mac)}"


def published(key: Key, **changed: object) -> dict[str, object]:
    return {**key.as_dict(private=False), **changed}


def signed(key: Key, algorithm: str, **header: object) -> str:
    claims = {"iss": "rapport", "aud": "rapport", "sub": "x", "roles": ["admin"], "exp": 4e9}
    named = {"alg": algorithm, "kid": key.kid, **header}
    return jwt.encode(named, claims, key, algorithms=[algorithm])


@pytest.mark.parametrize(
    ("key", "algorithm"), [(ED25519, "Ed25519"), (P256, "ES256"), (RSA, "RS256")]
)
def test_a_key_set_is_read_for_each_algorithm(key: Key, algorithm: str) -> None:
    others = [published(other) for other in (ED25519, P256, RSA) if other is not key]
    keys = read_key_set({"keys": [*others, published(key, use="sig", alg=algorithm)]})
    assert Verifier(keys, "rapport", "rapport").verify(signed(key, algorithm)).subject == "x"


@pytest.mark.parametrize(
    "unfit",
    [
        lambda: SECRET.as_dict(),
        lambda: ED25519.as_dict(private=True),
        lambda: RSA.as_dict(private=True),
        lambda: published(P256, use="enc"),
        lambda: published(P256, key_ops=["encrypt"]),
        lambda: published(RSA, alg="RSA-OAEP"),
        lambda: published(RSA, alg="RS512"),
        lambda: published(RSA, alg="HS256"),
        lambda: published(RSA, kid=7),
        lambda: published(RSA, n="AQAB"),
        lambda: published(RSA, n=1),
        lambda: published(P256, crv="P-521"),
        lambda: published(P256, x="AAAA"),
        lambda: published(P256, kty="RSA"),
        lambda: published(P256, kty=[]),
        lambda: published(P256, key_ops=5),
        lambda: published(P256, alg={}),
        lambda: {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA"},
        lambda: short_rsa(),
        lambda: {},
        lambda: None,
        lambda: "key",
    ],
)
def test_a_key_that_nobody_may_sign_with_is_passed_over(unfit: Callable[[], object]) -> None:
    keys = read_key_set({"keys": [unfit(), published(ED25519)]})
    assert [key.kid for key in keys] == [ED25519.kid]
    with pytest.raises(Invalid):
        read_key_set({"keys": [unfit()]})


@pytest.mark.parametrize("document", [None, 5, "keys", [], {}, {"keys": None}, {"keys": {}}])
def test_what_is_no_key_set_is_refused(document: object) -> None:
    with pytest.raises(Invalid):
        read_key_set(document)


def test_algorithms_and_keys_are_not_to_be_confused() -> None:
    keys = read_key_set({"keys": [published(RSA), published(P256), published(ED25519)]})
    verifier = Verifier(keys, "rapport", "rapport")
    for bad in (
        forged(RSA.as_pem(private=False), RSA.kid),
        forged(RSA.as_pem(private=False).rstrip(), RSA.kid),
        forged(json.dumps(published(RSA)).encode(), RSA.kid),
        forged(b"", RSA.kid),
        signed(SECRET, "HS256"),
        signed(RSA, "RS512"),
        signed(RSA, "PS256"),
        signed(RSA, "RS256", kid=P256.kid),
        signed(P256, "ES256", kid=RSA.kid),
        signed(ED25519, "Ed25519", kid=P256.kid),
        signed(RSA, "RS256", kid=""),
    ):
        with pytest.raises(Unauthorized):
            verifier.verify(bad)


def test_with_other_keys_nothing_counts_that_was_checked_before() -> None:
    verifier = Verifier(read_key_set({"keys": [published(RSA)]}), "rapport", "rapport")
    token = signed(RSA, "RS256")
    assert verifier.verify(token).subject == "x"
    assert not verifier.use(read_key_set({"keys": [published(RSA)]}))
    assert verifier.verify(token).subject == "x"
    assert verifier.use(read_key_set({"keys": [published(P256, kid=RSA.kid)]}))
    with pytest.raises(Unauthorized):
        verifier.verify(token)
