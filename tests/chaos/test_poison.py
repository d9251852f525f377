"""Poison is poison: nobody can read a piece of it, and somebody has to give it up."""

from random import Random

import pytest

from chaos.poison import SPOILS, Spoil, given_up_by, is_poison, poison, spoilt
from rapport.common.events.codec import Undecodable, decode
from rapport.common.events.envelope import CATALOGUE
from rapport.common.events.topics import DEAD_LETTERS, INBOUND

OURS = sorted(type for type, declared in CATALOGUE.items() if declared.TOPIC is not None)


@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_an_event_that_is_spoilt_cannot_be_read(spoil: Spoil) -> None:
    for type in OURS:
        with pytest.raises(Undecodable):
            decode(spoilt(type, spoil, "poison-1"))


def test_each_piece_is_given_up_by_somebody_and_told_from_all_others() -> None:
    pieces = poison(Random(1), 500)
    assert len({piece.key for piece in pieces}) == 500
    assert all(is_poison(piece.key) for piece in pieces)
    letters = [piece for piece in pieces if piece.topic == DEAD_LETTERS.name]
    assert letters == [piece for piece in pieces if not given_up_by(piece)]
    assert {"intake"} == set().union(
        *(given_up_by(piece) for piece in pieces if piece.topic == INBOUND.name)
    )


def test_a_draw_with_the_same_seed_gives_the_same_poison() -> None:
    first, second = poison(Random(7), 50), poison(Random(7), 50)
    assert [piece.key for piece in first] == [piece.key for piece in second]
    assert [piece.value for piece in first] == [piece.value for piece in second]
