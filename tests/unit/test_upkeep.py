"""Whose file of etcd's is made smaller, and what is said of members that are not well."""

from __future__ import annotations

import pytest

from seaway.agent.upkeep import complaints, in_turn, silences
from seaway.store.etcd import Status

MB, QUOTA = 1_000_000, 8_000_000_000
BIG, SMALL, FULL = (900 * MB, 100 * MB), (90 * MB, 1 * MB), (QUOTA, QUOTA)
NO_SPACE, CORRUPT = "memberID:2 alarm:NOSPACE ", "memberID:2 alarm:CORRUPT "


def status(number, sizes=SMALL, leader=1, errors=()):
    """How the member with that number says it is."""
    size, used = sizes
    return Status(
        cluster=1,
        member=number,
        leader=leader,
        learner=False,
        applied=1,
        size=size,
        used=used,
        errors=errors,
        version="3.4.23",
    )


def health(*members, errors=()):
    """Three members; a is the leader."""
    return {
        name: status(number, sizes, errors=errors) if sizes else None
        for name, number, sizes in zip("abc", (1, 2, 3), members, strict=True)
    }


@pytest.mark.parametrize(
    ("members", "errors", "turn"),
    [
        ((SMALL, SMALL, SMALL), (), ""),
        ((BIG, BIG, BIG), (), "b"),
        ((BIG, SMALL, BIG), (), "c"),
        ((BIG, SMALL, SMALL), (), "a"),  # the leader when nobody else is left
        ((SMALL, (900 * MB, 600 * MB), SMALL), (), ""),  # it would not help
        ((BIG, BIG, None), (), ""),  # with two away there is no majority
        ((SMALL, FULL, SMALL), (), ""),
        ((SMALL, FULL, SMALL), (NO_SPACE,), "b"),
        ((SMALL, SMALL, SMALL), (NO_SPACE,), ""),
        ((SMALL, BIG, SMALL), (CORRUPT,), ""),
    ],
)
def test_files_are_made_smaller_one_by_one(members, errors, turn):
    """Where that is worth it, while all are well, and the leader's last."""
    assert turn == in_turn(health(*members, errors=errors), QUOTA)


def test_a_member_without_a_leader_has_others_wait():
    """It may be cut off: none of the others can be spared."""
    found = health(SMALL, BIG, SMALL) | {"c": status(3, leader=0)}

    assert "" == in_turn(found, QUOTA)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (NO_SPACE, "etcd on HOST-b has no room left (8.0 GB), so nothing shared can change"),
        (CORRUPT, "etcd on HOST-b has other data than the others: 'seaway cluster leave' there"),
        ("memberID:2 alarm:FIRE ", "etcd on HOST-b says FIRE"),
        ("memberID:255 alarm:NOSPACE ", "etcd on member ff has no room left, so"),
    ],
)
def test_an_alarm_is_told_once_and_in_words(error, words):
    """Each member tells the alarms of all; it is not taken for silence."""
    found = health(SMALL, FULL, SMALL, errors=(error,))
    (said,) = complaints(found, lambda host: f"HOST-{host}")

    assert said.startswith(words)
    assert "\n" not in said
    assert [] == list(silences(found, str))


def test_who_does_not_answer_or_has_no_leader():
    """Two lines, with what to look at."""
    found = health(SMALL, SMALL, None) | {"b": status(2, leader=0)}

    assert [
        "etcd on b finds no leader: is it cut off from the others?",
        "etcd on c does not answer: does that host run?",
    ] == list(silences(found, str))
    assert [] == list(complaints(found, str))
