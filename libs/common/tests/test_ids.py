"""Ids: derived ones are a function of their parts, and every one has the same form."""

from base64 import b32encode
from hashlib import blake2b

from hypothesis import given
from hypothesis import strategies as st

from rapport.common.events.ids import base32, derived_id, random_id


@given(st.binary(min_size=16, max_size=16))
def test_an_id_is_written_in_base32(raw: bytes) -> None:
    assert base32(raw) == b32encode(raw).decode().rstrip("=").lower()


def test_a_derived_id_never_changes() -> None:
    digest = blake2b("1:a2:پ".encode(), digest_size=16).digest()
    assert derived_id("a", "پ") == base32(digest)
    assert derived_id("case", "shop", "T-1") == "2pryfm64alal3paqjr3yuucb3y"


def test_where_one_part_ends_and_the_next_begins_matters() -> None:
    assert derived_id("a", "bc") != derived_id("ab", "c")
    assert derived_id("a", "b") == derived_id("a", "b")


def test_random_ids_differ() -> None:
    assert len({random_id() for _ in range(100)}) == 100
