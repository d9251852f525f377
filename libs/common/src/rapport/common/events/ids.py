"""Identifiers: derived where a repeat must meet its first, random where nothing is known.

A derived id is a function of what it names, never of a position in a list, so doing the same thing
twice gives the same id and the second time changes nothing.
"""

import secrets
from hashlib import blake2b
from typing import Final

_BYTES: Final = 16
_BASE32: Final = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS: Final = [first + second for first in _BASE32 for second in _BASE32]
_PLACES: Final = range(120, -1, -10)


def derived_id(*parts: str) -> str:
    """Return the 26-character id of `parts`: BLAKE2b-128 in lower-case base32.

    Each part is prefixed with its length, so ("a", "bc") and ("ab", "c") differ.
    """
    joined = b"".join([b"%d:%b" % (len(part), part) for part in map(str.encode, parts)])
    return base32(blake2b(joined, digest_size=_BYTES).digest())


def random_id() -> str:
    """Return a fresh id of the same form, from the operating system's random source."""
    return base32(secrets.token_bytes(_BYTES))


def base32(raw: bytes) -> str:
    """Return 16 bytes as the 26 characters of an id: RFC 4648's base32, lower case, unpadded."""
    number = int.from_bytes(raw) << 2
    return "".join([_PAIRS[number >> place & 1023] for place in _PLACES])
