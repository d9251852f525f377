"""Identifiers: derived where a repeat must meet its first, random where nothing is known.

A derived id is a function of what it names, never of a position in a list, so doing the same thing
twice gives the same id and the second time changes nothing.
"""

import secrets
from base64 import b32encode
from hashlib import blake2b

_BYTES = 16


def derived_id(*parts: str) -> str:
    """Return the 26-character id of `parts`: BLAKE2b-128 in lower-case base32, collision-free in use.

    Each part is prefixed with its length, so ("a", "bc") and ("ab", "c") differ.
    """
    digest = blake2b(digest_size=_BYTES)
    for part in parts:
        encoded = part.encode()
        digest.update(b"%d:" % len(encoded))
        digest.update(encoded)
    return _text(digest.digest())


def random_id() -> str:
    """Return a fresh id of the same form, from the operating system's random source."""
    return _text(secrets.token_bytes(_BYTES))


def _text(raw: bytes) -> str:
    return b32encode(raw).decode().rstrip("=").lower()
