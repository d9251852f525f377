"""Who is calling, and what may they do: bearer tokens and one small table.

A token is a JWT, checked in one place against a key set, with the algorithm, issuer and audience
pinned. Standalone signs its own tokens with a key in its data directory; elsewhere an identity
provider does, and `jwks` follows the keys that it publishes. Roles are in the token's `roles`
claim.
"""

import json
import os
import time
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from fastapi.dependencies.models import Dependant
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError, SecurityWarning
from joserfc.jwk import Key, KeySet, OKPKey, import_key

from rapport.common.errors import Forbidden, Invalid, TemporaryError, Unauthorized

ALGORITHMS: Final = ("Ed25519", "ES256", "RS256")
_KINDS: Final = (("OKP", "Ed25519"), ("EC", "P-256"), ("RSA", None))

ROLES: Final = ("publisher", "viewer", "agent", "lead", "pr", "approver", "admin")
CACHED_TOKENS: Final = 1024

_EVERYONE_INSIDE: Final = frozenset(ROLES) - {"publisher"}

PERMISSIONS: Final[dict[str, frozenset[str]]] = {
    "feedback.submit": frozenset({"publisher", "agent", "lead", "pr", "admin"}),
    "feedback.read": frozenset(ROLES),
    "case.read": _EVERYONE_INSIDE,
    "case.work": frozenset({"agent", "lead", "admin"}),
    "case.assign": frozenset({"lead", "admin"}),
    "crisis.read": _EVERYONE_INSIDE,
    "crisis.propose": frozenset({"agent", "lead", "pr", "admin"}),
    "crisis.lead": frozenset({"lead", "pr", "admin"}),
    "knowledge.read": _EVERYONE_INSIDE,
    "article.write": frozenset({"agent", "lead", "pr", "admin"}),
    "key_message.write": frozenset({"pr", "admin"}),
    "statement.write": frozenset({"pr", "lead", "admin"}),
    "statement.approve": frozenset({"approver"}),
    "statement.release": frozenset({"pr", "admin"}),
    "statement.break_glass": frozenset({"admin"}),
    "stakeholder.read": frozenset({"agent", "lead", "pr", "admin"}),
    "stakeholder.write": frozenset({"pr", "lead", "admin"}),
    "interaction.write": frozenset({"agent", "lead", "pr", "admin"}),
    "communication.read": _EVERYONE_INSIDE,
    "communication.write": frozenset({"pr", "lead", "admin"}),
    "notification.acknowledge": _EVERYONE_INSIDE,
    "stream.read": _EVERYONE_INSIDE,
    "figures.read": _EVERYONE_INSIDE,
    "measurement.write": frozenset({"pr", "lead", "admin"}),
    "dead_letter.redrive": frozenset({"admin"}),
}
"""Action -> the roles that may do it."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller: a subject (the client's or person's name in the token) and its roles."""

    subject: str
    roles: frozenset[str]

    def may(self, action: str) -> bool:
        """Tell whether any of the roles allows `action`."""
        return not self.roles.isdisjoint(PERMISSIONS[action])

    def require(self, action: str) -> None:
        """Raise Forbidden, naming the roles that could, where none of the caller's may do it."""
        if self.roles.isdisjoint(PERMISSIONS[action]):
            allowed = ", ".join(sorted(PERMISSIONS[action]))
            raise Forbidden(f"{action} needs one of the roles: {allowed}")


class UnknownKey(Unauthorized):
    """The token is signed with a key that the key set does not hold (any more, or not yet)."""


def read_key_set(document: Any) -> KeySet:
    """Return the keys of a parsed JSON Web Key Set that tokens can be checked with.

    The others are passed over: symmetric and private keys, which nobody is to publish, those that
    are for something else, and what cannot be read. Raises Invalid where none is left.
    """
    entries = document.get("keys") if isinstance(document, dict) else None
    keys = [_checking_key(entry) for entry in entries] if isinstance(entries, list) else []
    usable = [key for key in keys if key is not None]
    if not usable:
        raise Invalid("there is no key in it that tokens can be checked with")
    return KeySet(usable)


def _checking_key(entry: Any) -> Key | None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", SecurityWarning)  # such as an RSA key under 2048 bits
        try:
            return import_key(entry) if _checks_tokens(entry) else None
        except (JoseError, SecurityWarning, ValueError, TypeError, LookupError, OverflowError):
            return None


def _checks_tokens(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and (entry.get("kty"), entry.get("crv")) in _KINDS
        and "d" not in entry
        and entry.get("use", "sig") == "sig"
        and "verify" in entry.get("key_ops", ["verify"])
        and entry.get("alg", ALGORITHMS[0]) in ALGORITHMS
    )


async def _nothing_new() -> None:
    return None


class Verifier:
    """Checks tokens; what was checked is remembered until it expires or the keys change.

    `look_again` is awaited when a request's token names an unknown key: whoever follows keys that
    change sets it, and gets them there with `use`.
    """

    def __init__(self, keys: KeySet, issuer: str, audience: str) -> None:
        self.look_again: Callable[[], Awaitable[None]] = _nothing_new
        self._keys = keys
        self._claims = jwt.JWTClaimsRegistry(
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            sub={"essential": True},
            exp={"essential": True},
        )
        self._known: dict[str, tuple[float, Principal]] = {}

    @classmethod
    def from_file(cls, path: Path, issuer: str, audience: str) -> "Verifier":
        """Check with the JSON Web Key Set in `path`; raises Invalid where that holds none."""
        try:
            keys = read_key_set(json.loads(path.read_text("utf-8")))
        except OSError as error:
            raise Invalid(f"{path} cannot be read: {error.strerror}") from None
        except (Invalid, ValueError, RecursionError):
            raise Invalid(f"{path} holds no JSON Web Key Set") from None
        return cls(keys, issuer, audience)

    def use(self, keys: KeySet) -> bool:
        """Check with `keys` from now on, and tell whether they are others than before.

        Where they are, nothing that was checked before counts any more.
        """
        if keys.as_dict() == self._keys.as_dict():
            return False
        self._keys = keys
        self._known.clear()
        return True

    def verify(self, token: str) -> Principal:
        """Return whose token it is; raises Unauthorized for any token that is not good now.

        UnknownKey among them, and TemporaryError where there are no keys at the moment.
        """
        known = self._known.get(token)
        if known is not None and known[0] > time.time():
            return known[1]
        if not self._keys:
            raise TemporaryError("the keys that tokens are checked with are not known", 30.0)
        try:
            claims = jwt.decode(token, self._keys, algorithms=list(ALGORITHMS)).claims
            self._claims.validate(claims)
        except InvalidKeyIdError:
            raise UnknownKey("the token is not valid") from None
        except (JoseError, ValueError, TypeError, RecursionError):  # headers of any shape, too
            raise Unauthorized("the token is not valid") from None
        roles = claims.get("roles")
        if not isinstance(roles, list) or not all(role in ROLES for role in roles):
            raise Unauthorized("the token's roles are not known")
        principal = Principal(str(claims["sub"]), frozenset(roles))
        if len(self._known) >= CACHED_TOKENS:
            self._known.clear()
        self._known[token] = (float(claims["exp"]), principal)
        return principal

    async def authorize(self, authorization: str | None, action: str) -> Principal:
        """Return the caller of a request with this Authorization header, who may do `action`.

        Raises Unauthorized or Forbidden. A token that names an unknown key waits for a look at what
        the provider publishes now.
        """
        if authorization is None:
            raise Unauthorized("a bearer token is needed")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("a bearer token is needed")
        try:
            principal = self.verify(token.strip())
        except UnknownKey:
            await self.look_again()
            principal = self.verify(token.strip())
        principal.require(action)
        return principal


class Signer:
    """Mints tokens with the key of a standalone installation."""

    def __init__(self, key: OKPKey, issuer: str, audience: str) -> None:
        self._key = key
        self._issuer = issuer
        self._audience = audience

    @classmethod
    def open(cls, folder: Path, issuer: str = "rapport", audience: str = "rapport") -> "Signer":
        """Read the signing key in `folder`, or make one there, readable by its owner alone."""
        private, public = folder / "sign.json", folder / "verify.json"
        if not private.exists():
            folder.mkdir(parents=True, exist_ok=True)
            fresh = OKPKey.generate_key("Ed25519", auto_kid=True)
            write_secret(private, json.dumps(fresh.as_dict(private=True)))
        key = OKPKey.import_key(json.loads(private.read_text()))
        if not public.exists():
            write_secret(public, json.dumps(KeySet([key]).as_dict(private=False)))
        return cls(key, issuer, audience)

    def mint(self, subject: str, roles: Sequence[str], *, days: float = 30) -> str:
        """Return a token for `subject`; raises Invalid for a role that does not exist."""
        unknown = sorted(set(roles) - set(ROLES))
        if unknown or not roles:
            raise Invalid(
                f"roles are some of {', '.join(ROLES)}; not {', '.join(unknown) or 'none'}"
            )
        now = int(time.time())
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": subject,
            "roles": list(roles),
            "iat": now,
            "exp": now + int(days * 86_400),
        }
        header = {"alg": "Ed25519", "kid": self._key.kid}
        return jwt.encode(header, claims, self._key, algorithms=list(ALGORITHMS))


def write_secret(path: Path, text: str) -> None:
    """Write a new file, whole or not at all, that only its owner can read.

    Raises FileExistsError where there is one: nobody's secret is ever replaced.
    """
    with NamedTemporaryFile("w", dir=path.parent, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        os.link(file.name, path)


_bearer = HTTPBearer(auto_error=False, description="A JWT with `roles`.")


@dataclass(frozen=True, slots=True)
class Needs:
    """The dependency of a route that needs `action`; it gives the Principal."""

    action: str

    async def __call__(
        self,
        request: Request,
        _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Principal:
        """Return the caller; raises as `Verifier.authorize` does."""
        return await self.check(request)

    async def check(self, request: Request) -> Principal:
        """Return the caller of a request; raises as `Verifier.authorize` does."""
        verifier: Verifier = request.app.state.verifier
        return await verifier.authorize(request.headers.get("authorization"), self.action)


def may(action: str) -> Any:
    """Return `Needs(action)` for a route's signature or its `dependencies`."""
    if action not in PERMISSIONS:
        raise KeyError(action)
    return Depends(Needs(action))


def needs_of(dependant: Dependant) -> Iterator[Needs]:
    """Yield what a route's dependencies need, however deep they lie."""
    if isinstance(dependant.call, Needs):
        yield dependant.call
    for inner in dependant.dependencies:
        yield from needs_of(inner)
