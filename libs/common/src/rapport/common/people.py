"""Who is the same person: a keyed hash of a normalised contact point, and nothing that can be read.

The key stays with the installation, so ids of two installations cannot be compared, and an id tells
nothing without it. E-mail addresses are compared in lower case, telephone numbers by their digits.
"""

import hmac
import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache

from rapport.common.events.ids import base32


def person_id(
    key: bytes,
    *,
    email: str | None = None,
    phone: str | None = None,
    handles: Mapping[str, str] | None = None,
) -> str | None:
    """Return the id of the person behind the first contact point given: e-mail, phone, handle.

    None where there is no contact point (a blank one is none). The id is 26 characters,
    HMAC-SHA-256 cut to 128 bits.
    """
    point = next(contact_points(email, phone, handles or {}), None)
    if point is None:
        return None
    keyed = _keyed(key).copy()
    keyed.update(point.encode())
    return base32(keyed.digest()[:16])


@lru_cache(maxsize=8)
def _keyed(key: bytes) -> hmac.HMAC:
    """Return the hash that has taken in the key; copying it is faster than making it."""
    return hmac.new(key, digestmod="sha256")


def contact_points(
    email: str | None, phone: str | None, handles: Mapping[str, str]
) -> Iterator[str]:
    """Name each contact point as persons are told apart by it; a blank one is none."""
    if email:
        plain = email if email.isascii() else unicodedata.normalize("NFKC", email)
        if address := plain.strip().lower():
            yield f"email:{address}"
    digits = "".join(str(unicodedata.digit(sign)) for sign in phone or "" if sign.isdigit())
    if number := digits.removeprefix("00"):
        yield f"phone:{number}"
    for network, handle in sorted(handles.items()):
        if name := handle.strip().lstrip("@").lower():
            yield f"{network.lower()}:{name}"
