"""Prometheus metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from seaway.agent.metrics import ClusterFigures, Collector
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

    def cluster_figures(self):
        """Three hosts, one of which is down; one way works and one does not."""
        paths = (("host2", "vxlan", 0.0005), ("host3", "wireguard", None))
        return ClusterFigures(alive=2, down=1, online=True, paths=paths)


def test_every_figure_has_its_line():
    """Names, labels and values, also of reasons that have dropped nothing."""
    registry = CollectorRegistry()
    registry.register(Collector(Figures()))
    lines = generate_latest(registry).decode().splitlines()

    for line in (
        'seaway_objects{kind="networks"} 2.0',
        'seaway_dropped_packets_total{reason="spoofed"} 3.0',
        'seaway_hosts{state="alive"} 2.0',
        'seaway_hosts{state="down"} 1.0',
        "seaway_store_reachable 1.0",
        'seaway_path_works{carrier="vxlan",host="host2"} 1.0',
        'seaway_path_works{carrier="wireguard",host="host3"} 0.0',
        'seaway_path_seconds{carrier="vxlan",host="host2"} 0.0005',
        'seaway_dropped_bytes_total{reason="spoofed"} 180.0',
        'seaway_dropped_packets_total{reason="isolated"} 0.0',
        'seaway_dns_queries_total{outcome="answered"} 7.0',
        "seaway_repairs_total 5.0",
        "seaway_kernel_matches 1.0",
    ):
        assert line in lines
