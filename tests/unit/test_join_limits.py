"""Who may connect to the join port, by a clock that tests set."""

from __future__ import annotations

from ipaddress import ip_address

from seaway.cluster.join_limits import Doorkeeper, Limits

ONE, OTHER = ip_address("192.0.2.1"), ip_address("192.0.2.2")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_one_source_cannot_take_all_connections():
    """Its own bound is reached before everybody's."""
    door = Doorkeeper(Limits(total=3, per_source=2))

    assert [True, True, False] == [door.enter(ONE) for _ in range(3)]
    assert [True, False] == [door.enter(OTHER) for _ in range(2)]


def test_a_connection_that_ends_makes_room():
    """Who leaves is not counted any more."""
    door = Doorkeeper(Limits(per_source=1))
    door.enter(ONE)
    door.leave(ONE)

    assert door.enter(ONE)


def test_failures_in_a_row_bring_longer_and_longer_pauses():
    """Free at first, then 2, 4, 8 seconds, at most 60, and only for the source itself."""
    clock = Clock()
    door = Doorkeeper(Limits(), clock)
    pauses = []
    for _ in range(12):
        door.failed(ONE)
        waited = 0
        while not door.enter(ONE):
            waited += 1
            clock.now += 1
            assert door.enter(OTHER)
            door.leave(OTHER)
        door.leave(ONE)
        pauses.append(waited)

    assert [0, 0, 0, 0, 2, 4, 8, 16, 32, 60, 60, 60] == pauses


def test_a_right_answer_ends_the_row():
    """A host that joins at last starts anew."""
    door = Doorkeeper(Limits(attempts=2), Clock())
    door.failed(ONE)
    door.succeeded(ONE)
    door.failed(ONE)

    assert door.enter(ONE)


def test_neighbours_in_one_ipv6_subnet_count_as_one():
    """A host can call from any address of its /64."""
    door = Doorkeeper(Limits(attempts=1), Clock())
    door.failed(ip_address("2001:db8::1"))

    assert not door.enter(ip_address("2001:db8::2"))
    assert door.enter(ip_address("2001:db8:0:1::2"))


def test_what_is_remembered_of_strangers_is_bounded():
    """The one that failed longest ago is forgotten."""
    door = Doorkeeper(Limits(attempts=1, remembered=2), Clock())
    for last in (1, 2, 3):
        door.failed(ip_address(f"192.0.2.{last}"))

    assert [True, False, False] == [door.enter(ip_address(f"192.0.2.{n}")) for n in (1, 2, 3)]
