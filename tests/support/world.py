"""Desired state written down by a test, and a reconciler that brings the kernel to it.

    with world(host) as it:
        it.networks = [front]
        it.sandboxes = {web: [on(web, front, 2)]}
        it.settle()

Between entry and exit the test itself is in the host's namespace, as an agent is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from seaway.agent.events import Events
from seaway.agent.reconcile import Reconciler
from seaway.kernel import netns
from seaway.kernel.apply import Applier
from seaway.model.network import Network
from seaway.model.sandbox import Sandbox
from seaway.plan.diff import Diff
from seaway.plan.host import HostFacts, plan_host
from seaway.plan.networks import plan_network
from seaway.plan.resources import Resource
from seaway.plan.sandboxes import Attachment, plan_sandbox
from tests.support.netns import Namespace


class World:
    """What should be, and the reconciler.

    Attributes:
        networks, sandboxes: To be set by the test.
        more: Further plans, by name, e.g. what leads to another host.
        folder: Where namespaces of our making are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.networks: Sequence[Network] = ()
        self.sandboxes: dict[str, tuple[Sandbox, Sequence[Attachment]]] = {}
        self.more: dict[str, tuple[Resource, ...]] = {}
        self.facts = HostFacts()
        self.folder = folder
        self.events = Events()
        self.applier = Applier()
        self.kernel = Reconciler(self.applier, self.plans, str(folder), self.events)

    def put(self, who: Sandbox, *attachments: Attachment) -> None:
        """Want *who* attached so, and in no other way."""
        self.sandboxes[who.name] = (who, attachments)

    def plans(self) -> dict[str, tuple[Resource, ...]]:
        """Plan everything, as the agent does."""
        found = {"host": plan_host(self.facts)}
        found |= {f"network/{n.name}": plan_network(n, self.facts) for n in self.networks}
        for name, (who, attachments) in self.sandboxes.items():
            found[f"sandbox/{name}"] = plan_sandbox(who, attachments, self.facts)
        return found | self.more

    def settle(self) -> Diff:
        """Bring the kernel to it; a second plan must be empty.  Returns the first one."""
        done = self.kernel.audit("the test")
        left = self.kernel.look().lines()
        assert not left, f"a second plan is not empty: {left}"
        return done

    def todo(self) -> list[str]:
        """Say what a plan would do now, without the reasons."""
        return [line.split("   # ")[0] for line in self.kernel.look().lines()]


@contextmanager
def world(host: Namespace) -> Iterator[World]:
    """Be in *host* with an empty world; kept namespaces are gone at the end."""
    with tempfile.TemporaryDirectory(prefix="sww") as folder, netns.inside(str(host.path)):
        it = World(Path(folder, "netns"))
        try:
            yield it
        finally:
            it.kernel.close()
            it.applier.close()
            for kept in Path(folder).glob("netns/*"):
                netns.remove(str(kept))
