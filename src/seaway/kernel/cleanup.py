"""Remove everything of Seaway's from the kernel, by its marks alone."""

from __future__ import annotations

from seaway.kernel import firewalld, host_firewall, observe
from seaway.kernel.apply import Applier
from seaway.plan.diff import Diff
from seaway.plan.resources import TABLE, Resource, describe


def sweep(netns_dir: str) -> list[str]:
    """Delete our links, routes, table, kept namespaces and firewall rules; returns what it did.

    Raises:
        KernelError: Linux refused; run again, what is gone already is fine.
    """
    applier = Applier()
    try:
        found: list[Resource] = observe.host(applier.netlink)
        found += observe.kept_netns(netns_dir)
        applier.remove_links(applier.apply(Diff(delete=tuple(found))))
        done = [f"removed {describe(item)}" for item in found]
        if observe.table(applier.nft):
            applier.nft.run(f"delete table inet {TABLE}")
            done.append(f"removed table inet {TABLE}")
        return [*done, *host_firewall.remove(), *firewalld.remove()]
    finally:
        applier.close()
