"""The figures Seaway is to reach, and what came of them in a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import sub, truediv

from bench.questions import (
    attach,
    cli,
    dns,
    memory,
    overlay,
    overlay_attach,
    overlay_names,
    path,
    ports,
    run,
    scale,
)
from bench.samples import Sample, median, of, paired, percentile99

SEAWAY, DOCKER, NETAVARK, CNI = path.SEAWAY, path.DOCKER, path.NETAVARK, path.CNI


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A number from samples: a median, or the median of a comparison round by round.

    Attributes:
        what, who: Whose samples.
        base: Who they are compared with; "" for nobody.
        base_what: What of theirs; "" for the same.
        compare: How.
        reduce: What becomes of many samples where nobody is compared with.
        label: What it is called among peers; "" for *who*.
    """

    what: str
    who: str = SEAWAY
    base: str = ""
    base_what: str = ""
    compare: Callable[[float, float], float] = truediv
    reduce: Callable[[Sequence[Sample]], float | None] = median
    label: str = ""

    def value(self, samples: Sequence[Sample]) -> float | None:
        """Work it out; None if it was not measured."""
        mine = of(samples, self.what, self.who)
        if not self.base and not self.base_what:
            return self.reduce(mine)
        base = of(samples, self.base_what or self.what, self.base or self.who)
        return paired(mine, base, self.compare)


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """One line of the table.

    Attributes:
        text: What it is.
        figure: Seaway's.
        peers: Others' for comparison.
        unit: Of all of them; "" for a ratio.
        at_least, at_most: What is to be reached; one of the two.
        ahead_of: This peer's figure is to be beaten too.
        cost: What it is made of, told where it is missed.
    """

    text: str
    figure: Figure
    unit: str = ""
    peers: tuple[Figure, ...] = ()
    at_least: float | None = None
    at_most: float | None = None
    ahead_of: str = ""
    cost: str = ""

    def reached(self, samples: Sequence[Sample]) -> bool | None:
        """Is it reached?  None if it was not measured."""
        value = self.figure.value(samples)
        if value is None:
            return None
        rivals = [f.value(samples) for f in self.peers if f.who == self.ahead_of]
        if self.at_least is not None:
            return value >= self.at_least and all(r is None or value > r for r in rivals)
        return self.at_most is not None and value <= self.at_most


def _same_host(kind: str) -> Goal:
    what = path.name(path.SAME_HOST, kind)
    return Goal(
        text=f"same host, {kind}, all protections on, of a bare veth",
        figure=Figure(what=what, base=path.VETH),
        peers=tuple(Figure(what=what, who=w, base=path.VETH) for w in (DOCKER, NETAVARK, CNI)),
        at_least=0.75,
        ahead_of=DOCKER,
        cost="without rules and connection tracking the routed path reaches 0.86; tracking costs "
        "about 0.10 of connections and 0.06 of round trips, the check of source addresses 0.04, "
        "the hooks of address translation 0.015",
    )


def _from_outside(kind: str) -> Goal:
    what = path.name(path.OUTSIDE, kind)
    return Goal(
        text=f"published port from outside, {kind}, of a process on the host",
        figure=Figure(what=what, base=path.on_host(SEAWAY)),
        peers=tuple(
            Figure(what=what, who=w, base=path.on_host(w)) for w in (DOCKER, NETAVARK, CNI)
        ),
        at_least=0.80,
    )


def _local(kind: str, address: str) -> Goal:
    what = path.name(path.LOCAL, address, kind)
    peers = (DOCKER, NETAVARK, CNI) if address == path.LOCAL4 else (DOCKER,)
    return Goal(
        text=f"{address} to a published port, {kind}, of loopback",
        figure=Figure(what=what, base=path.LOOPBACK),
        peers=tuple(Figure(what=what, who=w, base=path.LOOPBACK) for w in peers),
        at_least=0.60,
    )


def _carried(kind: str, who: str, base: str, label: str = "") -> Figure:
    return Figure(what=path.name(overlay.ACROSS, kind), who=who, base=base, label=label)


def _of_hosts(kind: str, who: str, base: str) -> Figure:
    return _carried(kind, who, base, f"{who}, of {base}")


def _vxlan(kind: str) -> Goal:
    base = overlay.BRIDGED
    return Goal(
        text=f"overlay, vxlan, {kind}, of VXLAN and a bridge by hand",
        figure=_carried(kind, overlay.VXLAN, base),
        peers=(
            _carried(kind, overlay.SWARM, base),
            _carried(kind, overlay.ROUTED, base),
            _of_hosts(kind, overlay.VXLAN, overlay.SEAWAY_HOSTS),
            _of_hosts(kind, overlay.SWARM, overlay.SWARM_HOSTS),
            _of_hosts(kind, base, overlay.BARE),
        ),
        at_least=1.0,
        cost="routed VXLAN without any rule takes 24 µs a round trip, with a bridge 22; the checks "
        "of source addresses add 4, tracking inner packets 2.5, the forward rules "
        "1, address translation 0.5",
    )


OVERLAY_GOALS = (
    Goal(
        text="overlay, direct, round trips, of host to host",
        figure=_carried(overlay.ROUND_TRIPS, overlay.DIRECT, overlay.SEAWAY_HOSTS),
        peers=(
            _of_hosts(overlay.ROUND_TRIPS, overlay.SWARM, overlay.SWARM_HOSTS),
            _of_hosts(overlay.ROUND_TRIPS, overlay.DIRECT, overlay.BARE),
            _of_hosts(overlay.ROUND_TRIPS, overlay.SWARM, overlay.BARE),
        ),
        at_least=0.80,
        cost="of 26 µs a round trip 15 are the bare hosts', 4 two hops of routing, 3.5 the checks "
        "of source addresses, 2.5 connection tracking, 1 the forward rules",
    ),
    _vxlan(overlay.STREAM),
    _vxlan(overlay.ROUND_TRIPS),
    Goal(
        text="overlay, encrypted, one stream, of a plain wireguard-go tunnel",
        figure=_carried(overlay.STREAM, overlay.ENCRYPTED, overlay.WIREGUARD),
        at_least=0.95,
        cost="about 300 retransmissions a second: nothing slows down a sender in a container when "
        "the tunnel is full; where packets are lost has not been found yet",
    ),
    Goal(
        text="attach to an overlay network, API call",
        figure=Figure(what=overlay_attach.ATTACH),
        unit="ms",
        peers=(
            Figure(what=overlay_attach.ATTACH, reduce=percentile99, label="seaway, p99"),
            Figure(what=overlay_attach.ATTACH, who=overlay_attach.SWARM),
        ),
        at_most=10,
    ),
    Goal(
        text="a new container's name and address usable on another host, p99",
        figure=Figure(what=overlay_names.USABLE, reduce=percentile99),
        unit="ms",
        peers=(
            Figure(what=overlay_names.USABLE, label="seaway, median"),
            Figure(what=overlay_names.USABLE, who=overlay_names.SWARM, label="swarm, median"),
        ),
        at_most=100,
    ),
    Goal(
        text="memory of the agent, 1,000 hosts and 100,000 endpoints",
        figure=Figure(what=scale.FULL),
        unit="MB",
        peers=(
            Figure(what=scale.ALONE, label="seaway, alone in its cluster"),
            Figure(what=scale.FIRST, label="seaway, before it was started again"),
            Figure(what=scale.PROPORTIONAL, label="seaway, proportional"),
            Figure(what=scale.FULL, who=scale.TUNNEL),
        ),
        at_most=300,
    ),
    Goal(
        text="there, one more endpoint elsewhere: its name is answered",
        figure=Figure(what=scale.ENDPOINT),
        unit="ms",
        peers=(
            Figure(what=scale.ENDPOINT, reduce=percentile99, label="seaway, p99"),
            Figure(what=scale.ENDPOINT_CPU, label="CPU time"),
        ),
        at_most=5,
    ),
    Goal(
        text="there, one more block elsewhere: the kernel has its route",
        figure=Figure(what=scale.BLOCK),
        unit="ms",
        peers=(Figure(what=scale.BLOCK, reduce=percentile99, label="seaway, p99"),),
        at_most=5,
    ),
    Goal(
        text="there, kernel objects that endpoints elsewhere change",
        figure=Figure(what=scale.MOVED),
        unit="objects",
        at_most=0,
    ),
)
"""The table of issue 3."""


def _run(who: str, base: str = run.BARE) -> Figure:
    return Figure(what=run.RUN, who=who, base=base, compare=sub)


GOALS = (
    *map(_same_host, path.KINDS),
    *map(_from_outside, path.KINDS),
    *(_local(kind, address) for address in (path.LOCAL4, path.LOCAL6) for kind in path.KINDS),
    Goal(
        text="attach, API call",
        figure=Figure(what=attach.ATTACH),
        unit="ms",
        peers=(
            Figure(what=attach.CONNECT, who="docker network connect"),
            Figure(what=attach.ATTACH, who=NETAVARK),
            Figure(what=attach.ATTACH, who=CNI),
        ),
        at_most=6,
    ),
    Goal(
        text="attach, the last 20 of many, of the first 20",
        figure=Figure(what=attach.LATE, base_what=attach.EARLY),
        at_most=1.25,
    ),
    Goal(
        text="publish 1,000 separate ports",
        figure=Figure(what=ports.PUBLISH),
        unit="ms",
        peers=tuple(Figure(what=ports.PUBLISH, who=w) for w in ("docker run", NETAVARK, CNI)),
        at_most=40,
        cost="binding 1,000 sockets takes 9 ms, one transaction of 2,000 elements 8 ms, reading "
        "the request 5 ms, the plan 5 ms, the reply 3 ms",
    ),
    Goal(
        text="`run -d`, more than `podman run -d --network none`",
        figure=_run(SEAWAY),
        unit="ms",
        peers=(_run(run.SEAWAY_PORT), _run(run.PODMAN_PORT, run.PODMAN_BARE)),
        at_most=25,
        cost="Python starts in 8 ms, imports take 3 ms, attaching 5 ms, the word that it runs 1 ms",
    ),
    Goal(
        text="DNS, own names, 32 outstanding",
        figure=Figure(what=dns.RATE),
        unit="/s",
        peers=(Figure(what=dns.RATE, who=DOCKER), Figure(what=dns.RATE, who=dns.AARDVARK)),
        at_least=56_000,
    ),
    Goal(
        text="DNS, own names, p50 one at a time",
        figure=Figure(what=dns.LATENCY),
        unit="µs",
        peers=(Figure(what=dns.LATENCY, who=DOCKER), Figure(what=dns.LATENCY, who=dns.AARDVARK)),
        at_most=80,
    ),
    Goal(
        text="`network ls`",
        figure=Figure(what=cli.LIST),
        unit="ms",
        peers=(Figure(what=cli.LIST, who=DOCKER),),
        at_most=100,
    ),
    Goal(
        text="memory of the agent, 500 endpoints",
        figure=Figure(what=memory.FULL),
        unit="MB",
        peers=(Figure(what=memory.EMPTY, who=DOCKER),),
        at_most=90,
    ),
    *OVERLAY_GOALS,
)
"""The tables of issues 2 and 3, in their order."""
