"""Prometheus metrics, read from the agent's own objects when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
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
