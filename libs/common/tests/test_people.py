"""Who is the same person."""

import pytest

from rapport.common.people import person_id

KEY = b"a key of this installation"


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({"email": "Ana@Example.org"}, {"email": " ana@example.org "}),
        ({"phone": "+44 20 7946 0000"}, {"phone": "0044-20-7946-0000"}),
        ({"phone": "+98 21 1234"}, {"phone": "+۹۸ ۲۱ ۱۲۳۴"}),
        ({"handles": {"Net": "@ana"}}, {"handles": {"net": "Ana"}}),
        ({"email": "a@b.org", "phone": "1"}, {"email": "a@b.org"}),
        ({"email": "ａｎａ@example.org"}, {"email": "ana@example.org"}),
        ({"email": " \u3000", "phone": "1"}, {"phone": "1"}),
        ({"phone": "00", "handles": {"net": "ana"}}, {"handles": {"net": "ana"}}),
        ({"handles": {"a": " @ ", "net": "ana"}}, {"handles": {"net": "ana"}}),
    ],
)
def test_the_same_contact_point_is_the_same_person(
    one: dict[str, object], same: dict[str, object]
) -> None:
    assert person_id(KEY, **one) == person_id(KEY, **same)  # type: ignore[arg-type]


def test_other_points_other_keys_other_people() -> None:
    ids = {
        person_id(KEY, email="a@b.org"),
        person_id(KEY, email="b@b.org"),
        person_id(KEY, phone="123"),
        person_id(KEY, handles={"net": "123"}),
        person_id(b"another key", email="a@b.org"),
    }
    assert len(ids) == 5


def test_nobody_without_a_contact_point() -> None:
    assert person_id(KEY) is None
    assert person_id(KEY, phone="anonymous") is None
    assert person_id(KEY, email="  ", phone="00", handles={"net": "@"}) is None
