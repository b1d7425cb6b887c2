"""Seaway on several hosts that are one cluster."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from bench.engines.by_hand import Ends
from bench.engines.seaway import Seaway
from bench.programs import Failed
from seaway.lab import faults
from seaway.lab.topology import Lab, Machine

_COMPLETE_SECONDS = 30.0


class Members:
    """The agents of a cluster's hosts, in the order in which they joined."""

    def __init__(self, agents: Sequence[Seaway], addresses: Sequence[str]) -> None:
        self.agents = agents
        self._addresses = addresses

    @classmethod
    def form(
        cls,
        lab: Lab,
        machines: Sequence[Machine],
        addresses: Sequence[str],
        etcd: Sequence[str] = (),
    ) -> Members:
        """Start agents on *machines*, and make one cluster of them on *addresses*.

        Args:
            addresses: Of each machine, as ``--advertise`` has them: commas between several.
            etcd: URLs of a store; without any, they run their own.
        """
        for machine in machines:
            faults.start(lab, machine.name)
        agents = [Seaway(lab, machine) for machine in machines]
        first, *others = agents
        first.call(
            "POST", "/v1/cluster", {"advertise": addresses[0].split(","), "etcd": list(etcd)}
        )
        token = first.call("GET", "/v1/cluster/token")["token"]
        seed = addresses[0].split(",")[0]
        for agent, address in zip(others, addresses[1:], strict=True):
            request = {"token": token, "advertise": address.split(","), "address": seed}
            agent.call("POST", "/v1/cluster/join", request)
        members = cls(agents, addresses)
        members._wait_complete(0 if etcd else 3 if len(agents) >= 3 else 1)
        return members

    @property
    def first(self) -> Seaway:
        """The host that began."""
        return self.agents[0]

    @property
    def second(self) -> Seaway:
        """The host that joined it."""
        return self.agents[1]

    @property
    def third(self) -> Seaway:
        """The host that joined after that."""
        return self.agents[2]

    @property
    def hosts(self) -> Ends:
        """From host to host."""
        return Ends(self.first.machine.netns, self.second.machine.netns, self._addresses[1])

    def network(
        self, name: str, options: Mapping[str, str] | None = None, subnets: Sequence[str] = ()
    ) -> None:
        """Have an overlay network."""
        body = {"name": name, "driver": "overlay", "options": options or {}}
        self.first.call("POST", "/v1/networks", {**body, "subnets": list(subnets)})

    def _wait_complete(self, stores: int) -> None:
        """Wait until all hosts are alive, and that many have a store with a vote."""
        deadline = time.monotonic() + _COMPLETE_SECONDS
        while True:
            told = self.first.call("GET", "/v1/cluster")
            voters = [s for s in told["stores"] if s["healthy"] and not s["learner"]]
            if told["hosts"]["alive"] == len(self.agents) and len(voters) >= stores:
                return
            if time.monotonic() > deadline:
                raise Failed(f"the cluster is not complete after {_COMPLETE_SECONDS:g} s")
            time.sleep(0.05)
