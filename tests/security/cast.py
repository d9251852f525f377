"""Who knocks in these tests: a provider that signs tokens, and a stranger who does, too."""

import time
from typing import Any, Final

from joserfc import jwt
from joserfc.jwk import RSAKey

from rapport.common.auth import ROLES

KEY: Final = RSAKey.generate_key(2048, auto_kid=True)
_PUBLISHED: Final[dict[str, Any]] = KEY.as_dict(private=False)
PUBLIC: Final = RSAKey.import_key(_PUBLISHED)
_STRANGERS: Final[dict[str, Any]] = RSAKey.generate_key(2048).as_dict(private=True)
STRANGER: Final = RSAKey.import_key(_STRANGERS | {"kid": KEY.kid})
"""Another key, by the id of the provider's."""


def signed(
    key: RSAKey = KEY, *, header: dict[str, Any] | None = None, without: str = "", **changed: Any
) -> str:
    """Return a token with every role as the provider signs it, but for what is told."""
    now = int(time.time())
    claims: dict[str, Any] = {"iss": "rapport", "aud": "rapport", "sub": "eve"}
    claims |= {"roles": list(ROLES), "iat": now, "exp": now + 600} | changed
    told = {name: value for name, value in claims.items() if name != without}
    head = {"alg": "RS256", "kid": KEY.kid} | (header or {})
    return jwt.encode(head, told, key, algorithms=["RS256"])


def bearer(token: str) -> dict[str, str]:
    """Return the headers that bring a token."""
    return {"Authorization": f"Bearer {token}"}
