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
_LOW: Final = (1 << 70) - 1


def derived_id(*parts: str) -> str:
    """Return the 26-character id of `parts`: BLAKE2b-128 in lower-case base32.

    Each part is prefixed with its length in UTF-8, so ("a", "bc") and ("ab", "c") differ.
    """
    joined = "".join([f"{len(part)}:{part}" for part in parts])
    if not joined.isascii():
        joined = "".join([f"{len(part.encode())}:{part}" for part in parts])
    return base32(blake2b(joined.encode(), digest_size=_BYTES).digest())


def random_id() -> str:
    """Return a fresh id of the same form, from the operating system's random source."""
    return base32(secrets.token_bytes(_BYTES))


def base32(raw: bytes) -> str:
    """Return 16 bytes as the 26 characters of an id: RFC 4648's base32, lower case, unpadded.

    Two characters at a time and without a loop, since every event has several ids.
    """
    number = int.from_bytes(raw) << 2
    high, low = number >> 70, number & _LOW
    return (
        f"{_PAIRS[high >> 50]}{_PAIRS[high >> 40 & 1023]}{_PAIRS[high >> 30 & 1023]}"
        f"{_PAIRS[high >> 20 & 1023]}{_PAIRS[high >> 10 & 1023]}{_PAIRS[high & 1023]}"
        f"{_PAIRS[low >> 60]}{_PAIRS[low >> 50 & 1023]}{_PAIRS[low >> 40 & 1023]}"
        f"{_PAIRS[low >> 30 & 1023]}{_PAIRS[low >> 20 & 1023]}{_PAIRS[low >> 10 & 1023]}"
        f"{_PAIRS[low & 1023]}"
    )
