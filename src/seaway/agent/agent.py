"""One agent: the parts wired together, and what they say about themselves."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from seaway import __version__
from seaway.agent import networks
from seaway.agent.bindings import Bindings
from seaway.agent.cluster import ClusterService
from seaway.agent.core import Core, load_site
from seaway.agent.drift import DriftMonitor
from seaway.agent.events import Events
from seaway.agent.ground import Ground
from seaway.agent.guests import Neighbours
from seaway.agent.member import MemberFolder
from seaway.agent.metrics import ClusterFigures, Collector
from seaway.agent.names import Names
from seaway.agent.nodes import figures, glance
from seaway.agent.nodes import problems as node_problems
from seaway.agent.reconcile import Plans, Reconciler
from seaway.agent.restore import restore
from seaway.agent.state import State
from seaway.agent.watch import ContainerWatch
from seaway.dns.answer import Directory
from seaway.dns.forward import Forwarder
from seaway.dns.server import DnsServer
from seaway.dns.upstreams import HostResolvers
from seaway.engine import podman
from seaway.kernel import surroundings
from seaway.kernel.apply import Applier
from seaway.plan.resources import TABLE
from seaway.store.sqlite import SqliteStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How an agent was started."""

    state_dir: Path
    run_dir: Path
    node_name: str = ""
    podman_root: Path | None = None
    image_store: Path | None = None


class Agent:
    """Everything that runs on one host.  Made in the host's network namespace."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._began = time.monotonic()
        self._applier = Applier()
        facts = surroundings.facts(self._applier.netlink)
        events = Events()
        state = State(SqliteStore(settings.state_dir / "state.db"))
        resolvers = HostResolvers()
        forwarder = Forwarder(resolvers)
        directory = Directory()
        self.dns = DnsServer(directory, forwarder)
        kernel = Reconciler(self._applier, self._plans, str(settings.run_dir / "netns"), events)
        self.core = Core(
            state=state,
            kernel=kernel,
            bindings=Bindings(ipv6=facts.ipv6),
            names=Names(directory, self.dns),
            events=events,
            host=facts,
            site=load_site(settings.state_dir),
            run_dir=settings.run_dir,
            ground=Ground(),
            taken=lambda: surroundings.taken(self._applier.netlink),
            local=lambda: surroundings.local_addresses(self._applier.netlink),
        )
        self.cluster = ClusterService(
            self.core, MemberFolder(settings.state_dir), settings.node_name
        )
        self.watch = ContainerWatch(self.core, lambda: podman.container_ids(self.engine))
        self.neighbours = Neighbours(self.core, self._applier.netlink)
        self.drift = DriftMonitor(
            lambda: kernel.known,
            self._applier.ports,
            self._drifted,
            self.neighbours.kick,
            self._ground_changed,
        )
        self._registry = CollectorRegistry()
        self._registry.register(Collector(self))

    async def prepare(self) -> None:
        """Load, bind, audit: after this, everything that was asked for stands.

        Nothing is deleted before all desired state has been loaded and what
        became of each container meanwhile is known.
        """
        if self.core.host.ipv6:
            surroundings.keep_router_advertisements()
        await self.cluster.prepare()
        await networks.ensure_predefined(self.core)
        await restore(self.core)
        self.core.kernel.try_audit("start")
        self.core.names.networks(self.core.served(), ipv6=self.core.host.ipv6)
        for sandbox in self.core.state.sandboxes.values():
            self.core.index(sandbox)  # now that the namespaces which a reboot took are back
            self.core.names.put(sandbox, self.core.state.attachments(sandbox.id))
        await self.watch.adopt()

    def services(self) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
        """Name what has to keep running."""
        return {
            "dns": self.dns.run,
            "reconcile": self.core.kernel.run,
            "drift": self.drift.run,
            "containers": self.watch.run,
            "cluster": self.cluster.run,
            "neighbours": self.neighbours.run,
        }

    @property
    def engine(self) -> podman.Podman:
        """How to call Podman here, found out afresh: people install and change things."""
        return podman.find(
            self.settings.podman_root, self.settings.run_dir, self.settings.image_store
        )

    def _ground_changed(self) -> None:
        """Other hosts may be reached in another way than before."""
        if self.core.cluster is not None:
            self.core.cluster.overlay.underlay_changed()

    def _drifted(self, why: str) -> None:
        """A link that went may have gone with its namespace, and whatever ran there."""
        self.core.kernel.kick(why)
        self.watch.check_attached()

    def _plans(self) -> Plans:
        """Plan everything.  What has lost its namespace is not in it: the look that comes before
        the announcement of its link's end would be the last to know of it."""
        plans = self.core.plans()
        if any(f"sandbox/{i}" not in plans for i in self.core.state.sandboxes):
            self.watch.check_attached()
        return plans

    # -- what it says about itself -------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Say what is applied, what failed and why."""
        state, kernel = self.core.state, self.core.kernel
        problems = [{"object": "kernel", "error": kernel.error}] if kernel.error else []
        problems += [
            {"object": state.sandboxes[i].name, "error": why}
            for i, why in self.core.failures.items()
            if i in state.sandboxes
        ]
        problems += [{"object": path, "error": why} for path, why in kernel.unseen.items()]
        problems += [
            {"object": where, "error": why} for where, why in self.core.names.errors.items()
        ]
        if self.neighbours.error:
            problems.append({"object": "firewall", "error": self.neighbours.error})
        ship = self.core.cluster
        problems += node_problems(ship) if ship is not None else []
        return {
            "cluster": glance(ship) if ship is not None else None,
            "version": __version__,
            "healthy": not problems,
            "problems": problems,
            "uptime": round(time.monotonic() - self._began, 1),
            "objects": self.sizes(),
            "repairs": kernel.repairs,
            "drops": {name: packets for name, (packets, _) in self.drops().items()},
            "ipv6": self.core.host.ipv6,
            "mtu": self.core.host.mtu,
            "site": str(self.core.site),
            "state_dir": str(self.settings.state_dir),
        }

    def sizes(self) -> dict[str, int]:
        """Count objects by kind."""
        state = self.core.state
        return {
            "networks": len(state.networks),
            "sandboxes": len(state.sandboxes),
            "endpoints": len(state.endpoints),
            "published_ports": sum(p.count for s in state.sandboxes.values() for p in s.published),
            "kernel_resources": len(self.core.kernel.known),
        }

    def drops(self) -> dict[str, tuple[int, int]]:
        """Read the counters of everything we drop."""
        listing = self._applier.nft.listing(f"counters table inet {TABLE}")
        found = (item["counter"] for item in listing if "counter" in item)
        return {c["name"]: (c["packets"], c["bytes"]) for c in found}

    def dns_counters(self) -> Any:
        """Return the name server's counters."""
        return self.dns.counters

    def repairs(self) -> tuple[int, bool]:
        """Return resources put right since the start, and whether the kernel matches."""
        return self.core.kernel.repairs, not self.core.kernel.error

    def cluster_figures(self) -> ClusterFigures | None:
        """Return what is measured of the cluster; None outside one."""
        ship = self.core.cluster
        return figures(ship) if ship is not None else None

    def metrics(self) -> bytes:
        """Render Prometheus' text format."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Let go of sockets.  Containers, links, rules and ports in the kernel stay."""
        self.core.ground.close()
        self.core.kernel.close()
        self.core.bindings.close()
        self._applier.close()
