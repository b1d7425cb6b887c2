"""Hosts for what happens between hosts, in a lab of their own.

Three pairs, each on a cable of its own (a veth pair, nothing else): one with
nothing but what is built by hand, one with Docker's swarm, one with Seaway.
Ratios to "from host to host" are always taken on such a cable.  Three more
hosts hang on the lab's wire and make a cluster with three stores.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from bench.engines.by_hand import ByHand, Ends
from bench.engines.members import Members
from bench.engines.swarm import Swarm
from bench.spaces import Spaces, wire
from seaway.lab.topology import Lab, Machine

NAME = "bench-far"
HOSTS = 10
_BY_HAND, _SWARM, _PAIR, _CLUSTER = (1, 2), (3, 4), (5, 6), (7, 8, 9)
_ALONE = 10
_CABLE = "cable"


class Far:
    """Where a question finds hosts that reach each other; all start when first asked for."""

    def __init__(self, lab: Lab, spaces: Spaces, binary: Path, stack: ExitStack) -> None:
        self.lab = lab
        self._spaces = spaces
        self._binary = binary
        self._stack = stack

    @cached_property
    def by_hand(self) -> ByHand:
        """Two hosts with nothing on them."""
        a, b = self._hosts(_BY_HAND)
        return ByHand((a.netns, b.netns), wire(a.netns, b.netns, _CABLE))

    @cached_property
    def wireguard(self) -> Ends:
        """A plain tunnel by wireguard-go between those two."""
        return self._stack.enter_context(self.by_hand.wireguard())

    @cached_property
    def swarm(self) -> Swarm:
        """Two dockerds in one swarm."""
        a, b = self._hosts(_SWARM)
        addresses = wire(a.netns, b.netns, _CABLE)
        return self._stack.enter_context(Swarm.running((a, b), addresses, self._binary))

    @cached_property
    def pair(self) -> Members:
        """Two Seaway hosts on a cable."""
        a, b = self._hosts(_PAIR)
        return Members.form(self.lab, (a, b), wire(a.netns, b.netns, _CABLE))

    @cached_property
    def cluster(self) -> Members:
        """Three Seaway hosts on the lab's wire, each with a store."""
        machines = self._hosts(_CLUSTER)
        return Members.form(self.lab, machines, [str(m.v4.ip) for m in machines])

    @property
    def alone(self) -> Machine:
        """A host on which nothing runs yet."""
        (machine,) = self._hosts((_ALONE,))
        return machine

    def _hosts(self, numbers: tuple[int, ...]) -> list[Machine]:
        return [self.lab.host(f"host{number}") for number in numbers]
