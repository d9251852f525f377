"""Who is calling, and what may they do: bearer tokens and one small table.

A token is a JWT, checked in one place against a key set, with the algorithm, issuer and audience
pinned. Standalone signs its own tokens with a key in its data directory; elsewhere an identity
provider does. Roles are in the token's `roles` claim.
"""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Annotated, Any, Final

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet, OKPKey

from rapport.common.errors import Forbidden, Invalid, Unauthorized

ALGORITHMS: Final = ("Ed25519", "ES256", "RS256")
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


class Verifier:
    """Checks tokens; what was checked is remembered until it expires."""

    def __init__(self, keys: KeySet, issuer: str, audience: str) -> None:
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
            keys = KeySet.import_key_set(json.loads(path.read_text("utf-8")))
        except OSError as error:
            raise Invalid(f"{path} cannot be read: {error.strerror}") from None
        except (JoseError, ValueError, TypeError, LookupError):
            raise Invalid(f"{path} holds no JSON Web Key Set") from None
        return cls(keys, issuer, audience)

    def verify(self, token: str) -> Principal:
        """Return whose token it is; raises Unauthorized for any token that is not good now."""
        known = self._known.get(token)
        if known is not None and known[0] > time.time():
            return known[1]
        try:
            claims = jwt.decode(token, self._keys, algorithms=list(ALGORITHMS)).claims
            self._claims.validate(claims)
        except (JoseError, ValueError, TypeError):  # the last for headers that are no text
            raise Unauthorized("the token is not valid") from None
        roles = claims.get("roles")
        if not isinstance(roles, list) or not all(role in ROLES for role in roles):
            raise Unauthorized("the token's roles are not known")
        principal = Principal(str(claims["sub"]), frozenset(roles))
        if len(self._known) >= CACHED_TOKENS:
            self._known.clear()
        self._known[token] = (float(claims["exp"]), principal)
        return principal

    def authorize(self, authorization: str | None, action: str) -> Principal:
        """Return the caller of a request with this Authorization header, who may do `action`."""
        if authorization is None:
            raise Unauthorized("a bearer token is needed")
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("a bearer token is needed")
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


def may(action: str) -> Any:
    """Return the dependency of a route that needs `action`; it gives the Principal."""

    async def check(
        request: Request,
        _: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> Principal:
        verifier: Verifier = request.app.state.verifier
        return verifier.authorize(request.headers.get("authorization"), action)

    if action not in PERMISSIONS:
        raise KeyError(action)
    return Depends(check)
