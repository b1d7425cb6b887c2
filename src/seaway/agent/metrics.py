"""Prometheus metrics, read from the agent's own objects when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from seaway.plan.ruleset import DROPS


class Source(Protocol):
    """What the metrics are read from."""

    def sizes(self) -> dict[str, int]:
        """Return how many objects of each kind there are."""
        ...

    def drops(self) -> dict[str, tuple[int, int]]:
        """Return packets and bytes dropped, by counter name."""
        ...

    def dns_counters(self) -> Any:
        """Return the name server's counters, a dataclass of integers."""
        ...

    def repairs(self) -> tuple[int, bool]:
        """Return resources put right since the start, and whether the kernel matches now."""
        ...

    def cluster_figures(self) -> ClusterFigures | None:
        """Return what is measured of the cluster; None outside one."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFigures:
    """What a member measures of its cluster.

    Attributes:
        alive, down: Hosts.
        online: The store is within reach.
        paths: Host, carrier, seconds there and back; None for what does not come back.
    """

    alive: int
    down: int
    online: bool
    paths: tuple[tuple[str, str, float | None], ...]


class Collector:
    """Hands the figures to prometheus_client."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def collect(self) -> Iterator[Metric]:
        """Yield every metric once."""
        objects = GaugeMetricFamily("seaway_objects", "Objects by kind", labels=["kind"])
        for kind, count in self._source.sizes().items():
            objects.add_metric([kind], count)
        yield objects
        packets = CounterMetricFamily(
            "seaway_dropped_packets", "Packets dropped, by reason", labels=["reason"]
        )
        octets = CounterMetricFamily(
            "seaway_dropped_bytes", "Bytes dropped, by reason", labels=["reason"]
        )
        drops = self._source.drops()
        for name in DROPS:
            count, size = drops.get(name, (0, 0))
            packets.add_metric([name.removeprefix("drop_")], count)
            octets.add_metric([name.removeprefix("drop_")], size)
        yield packets
        yield octets
        queries = CounterMetricFamily(
            "seaway_dns_queries", "Questions by outcome", labels=["outcome"]
        )
        outcomes = asdict(self._source.dns_counters())
        del outcomes["queries"]  # their sum
        for outcome, count in outcomes.items():
            queries.add_metric([outcome], count)
        yield queries
        repaired, matches = self._source.repairs()
        yield CounterMetricFamily(
            "seaway_repairs", "Kernel objects put right by audits", value=repaired
        )
        yield GaugeMetricFamily(
            "seaway_kernel_matches", "1 if the last audit succeeded", value=int(matches)
        )
        if (cluster := self._source.cluster_figures()) is not None:
            yield from _cluster(cluster)


def _cluster(figures: ClusterFigures) -> Iterator[Metric]:
    hosts = GaugeMetricFamily("seaway_hosts", "Hosts of the cluster by state", labels=["state"])
    hosts.add_metric(["alive"], figures.alive)
    hosts.add_metric(["down"], figures.down)
    yield hosts
    yield GaugeMetricFamily(
        "seaway_store_reachable", "1 if the cluster's store answers", value=int(figures.online)
    )
    labels = ["host", "carrier"]
    works = GaugeMetricFamily(
        "seaway_path_works", "1 if packets of full size come back from a host", labels=labels
    )
    seconds = GaugeMetricFamily(
        "seaway_path_seconds", "Seconds to a host and back, in full size", labels=labels
    )
    for host, carrier, took in figures.paths:
        works.add_metric([host, carrier], int(took is not None))
        if took is not None:
            seconds.add_metric([host, carrier], took)
    yield works
    yield seconds
