"""Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from seaway.agent.metrics import Collector
from seaway.dns.server import Counters


class Figures:
    """What they are read from."""

    def sizes(self):
        """Two networks."""
        return {"networks": 2}

    def drops(self):
        """One reason has dropped something."""
        return {"drop_spoofed": (3, 180)}

    def dns_counters(self):
        """Seven questions."""
        return Counters(queries=7, answered=7)

    def repairs(self):
        """Five, and all is well."""
        return 5, True


def test_every_figure_has_its_line():
    """Names, labels and values, also of reasons that have dropped nothing."""
    registry = CollectorRegistry()
    registry.register(Collector(Figures()))
    lines = generate_latest(registry).decode().splitlines()

    for line in (
        'seaway_objects{kind="networks"} 2.0',
        'seaway_dropped_packets_total{reason="spoofed"} 3.0',
        'seaway_dropped_bytes_total{reason="spoofed"} 180.0',
        'seaway_dropped_packets_total{reason="isolated"} 0.0',
        'seaway_dns_queries_total{outcome="answered"} 7.0',
        "seaway_repairs_total 5.0",
        "seaway_kernel_matches 1.0",
    ):
        assert line in lines
