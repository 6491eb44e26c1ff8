"""Samples that are set aside, and the number that identifies a sample."""

from __future__ import annotations

from vlmdsl.runtime.data import open_source, split_samples
from vlmdsl.runtime.data.source import JoinedSource, parts_of
from vlmdsl.runtime.values import key_number


def test_a_share_is_set_aside_and_nothing_is_in_both_or_lost() -> None:
    source = open_source(["shapes:samples=50"])
    rest, kept = split_samples(source, 0.1, seed=3)
    assert (len(rest), len(kept)) == (45, 5)
    assert sorted([*rest.keys, *kept.keys]) == sorted(source.keys)
    assert [rest[4]["text"], kept[2]["text"]] == [
        source[list(source.keys).index(key)]["text"] for key in (rest.keys[4], kept.keys[2])
    ]


def test_the_draw_is_the_seeds() -> None:
    source = open_source(["shapes:samples=50"])
    again, other = split_samples(source, 0.1, seed=3)[1], split_samples(source, 0.1, seed=4)[1]
    assert list(split_samples(source, 0.1, seed=3)[1].keys) == list(again.keys)
    assert list(again.keys) != list(other.keys)
    assert len(split_samples(source, 0.001, seed=0)[1]) == 1


def test_the_samples_left_know_where_they_come_from() -> None:
    one, two = open_source(["shapes:samples=4"]), open_source(["shapes:samples=4,seed=1"])
    rest, _ = split_samples(JoinedSource([one, two]), 0.25, seed=0)
    names, numbers = parts_of(rest)
    assert len(numbers) == len(rest)
    assert {names[number] for number in numbers} == {one.name, two.name}


def test_keys_as_numbers_fit_and_differ() -> None:
    numbers = {key_number(f"sample-{index}") for index in range(1000)}
    assert len(numbers) == 1000
    assert all(0 <= number < 2**63 for number in numbers)
