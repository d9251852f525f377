"""Who is the same person: a keyed hash of a normalised contact point, and nothing that can be read.

The key stays with the installation, so ids of two installations cannot be compared, and an id tells
nothing without it. E-mail addresses are compared in lower case, telephone numbers by their digits.
"""

import hmac
import unicodedata
from collections.abc import Mapping

from rapport.common.events.ids import base32


def person_id(
    key: bytes,
    *,
    email: str | None = None,
    phone: str | None = None,
    handles: Mapping[str, str] | None = None,
) -> str | None:
    """Return the id of the person behind the first contact point given: e-mail, phone, handle.

    None where there is no contact point. The id is 26 characters, HMAC-SHA-256 cut to 128 bits.
    """
    point = _contact_point(email, phone, handles or {})
    if point is None:
        return None
    return base32(hmac.digest(key, point.encode(), "sha256")[:16])


def _contact_point(email: str | None, phone: str | None, handles: Mapping[str, str]) -> str | None:
    if email:
        return f"email:{unicodedata.normalize('NFKC', email).strip().lower()}"
    if phone:
        digits = "".join(
            str(unicodedata.digit(character)) for character in phone if character.isdigit()
        )
        return f"phone:{digits.removeprefix('00')}" if digits else None
    for network, handle in sorted(handles.items()):
        return f"{network.lower()}:{handle.strip().lstrip('@').lower()}"
    return None
