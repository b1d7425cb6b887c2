"""Carry out a plan: one nft transaction, then one netlink batch per namespace.

Order, and why: namespaces first, since links are made in them; then the one nft
transaction, so that an endpoint's rules stand before its link comes up; then
links, the keys and peers of WireGuard's, addresses, neighbours and FDB entries, and
routes; deletions last, and only if everything before worked.  What is already there or
already gone is success, so an interrupted plan is finished by the next one.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from threading import Lock
from typing import TypeVar

from seaway.errors import KernelError, NotFound, SeawayError, from_errno
from seaway.kernel import conntrack, netns, observe, offload, wireguard
from seaway.kernel import netlink as nl
from seaway.kernel.conntrack import open_socket
from seaway.kernel.messages import (
    configure,
    delete_link,
    is_on_link,
    mark,
    new_link,
    on_link,
    rename,
    set_attributes,
    set_mtu,
    set_up,
)
from seaway.kernel.nft import Nft
from seaway.kernel.surroundings import local_addresses, require_link
from seaway.model.names import ifname
from seaway.model.network import Address
from seaway.plan.diff import Diff
from seaway.plan.resources import (
    TABLE,
    WIREGUARD_PREFIX,
    Element,
    Fdb,
    Link,
    LinkAddress,
    LinkKind,
    Neighbour,
    Netns,
    Resource,
    Route,
    Ruleset,
    Sysctl,
    WireGuardDevice,
    WireGuardPeer,
)

T = TypeVar("T")


def only(kind: type[T], items: Iterable[Resource]) -> list[T]:
    """Pick the resources of one kind, in order."""
    return [item for item in items if isinstance(item, kind)]


# -- nftables ---------------------------------------------------------------------------


def nft_text(plan: Diff) -> str:
    """Render the plan's nftables part as one transaction; "" when there is none."""
    lines: list[str] = []
    for rules in only(Ruleset, (*plan.create, *(new for _, new in plan.change))):
        lines += [f"add table inet {TABLE}", f"flush table inet {TABLE}", rules.text]
    gone = only(Element, (*(old for old, _ in plan.change), *plan.delete))
    made = only(Element, (*(new for _, new in plan.change), *plan.create))
    lines += _element_lines("delete", gone)
    lines += _element_lines("add", made)
    return "\n".join(lines)


def _element_lines(verb: str, elements: Iterable[Element]) -> Iterator[str]:
    by_set: dict[str, list[str]] = {}
    for e in elements:
        text = " . ".join(e.match)
        if e.value and verb == "add":
            text += " : " + " . ".join(e.value)
        by_set.setdefault(e.set, []).append(text)
    for name, texts in by_set.items():
        yield f"{verb} element inet {TABLE} {name} {{ {', '.join(texts)} }}"


Place = tuple[Address | None, int]
"""Host address, None for all of the host's, and port: where clients send to."""

Backends = dict[Place, tuple[Address, int] | None]
"""Who answers there now, None for nobody."""


def moved_udp_ports(plan: Diff) -> dict[int, Backends]:
    """Map, by IP version, every UDP host port whose element *plan* touches to its backend."""
    moved: dict[int, Backends] = {}
    gone = (*plan.delete, *(old for old, _ in plan.change))
    made = (*plan.create, *(new for _, new in plan.change))
    for items, stands in ((gone, False), (made, True)):
        for e in only(Element, items):
            if "udp" in e.match and e.set.startswith("publish"):
                _note_backends(moved.setdefault(int(e.set[-1]), {}), e, stands=stands)
    return moved


def _note_backends(moved: Backends, e: Element, *, stands: bool) -> None:
    *where, _udp, span = e.match
    here = ip_address(where[0]) if where and "/" not in where[0] else None
    first, _, last = span.partition("-")
    for port in range(int(first), int(last or first) + 1):
        inner = int(e.value[1]) if len(e.value) > 1 else port
        moved[here, port] = (ip_address(e.value[0]), inner) if stands else None


_ASKED_SINGLY = 3  # ports


def _without_elements(plan: Diff) -> Diff:
    """Leave out what nft_text() renders: there may be thousands, and nobody else needs them."""
    return Diff(
        create=tuple(item for item in plan.create if not isinstance(item, Element)),
        change=tuple(pair for pair in plan.change if not isinstance(pair[1], Element)),
        delete=tuple(item for item in plan.delete if not isinstance(item, Element)),
    )


# -- carrying out -------------------------------------------------------------------------


def _has_moved(flow: conntrack.Flow, moved: Backends, ours: Container[Address]) -> bool:
    """Was it sent to one of *moved*, and is it answered by somebody else than should be?"""
    address, port = flow.to
    for place in (flow.to, (None, port)):
        if place in moved and (place[0] is not None or address in ours):
            return moved[place] != flow.answered_by
    return False


class Applier:
    """Carries out plans in the host's namespace, where it was made.

    Attributes:
        rules_seen: How the kernel listed our rules when we had put them there; "" before.

    Kernel: CAP_NET_ADMIN and, for other namespaces, CAP_SYS_ADMIN.
    """

    def __init__(self) -> None:
        self.nft = Nft()
        self.netlink = nl.Netlink()
        self.conntrack = open_socket()
        self._remover = nl.Netlink()
        self._removing = Lock()
        self.rules_seen = ""

    @property
    def ports(self) -> frozenset[int]:
        """Netlink port numbers of our own requests, which announcements of their effect carry."""
        return frozenset({self.netlink.port, self._remover.port})

    def close(self) -> None:
        """Let go of the sockets."""
        self.nft.close()
        for sock in (self.netlink, self.conntrack, self._remover):
            sock.close()

    def apply(self, plan: Diff) -> tuple[str, ...]:
        """Make the kernel match; see the module's docstring for the order.

        Returns:
            Host links that are still to be removed with remove_links().  The
            kernel takes some 40 ms over each, so that is left to a thread; by
            now nothing passes them any more, since their elements have gone.

        Raises:
            SeawayError: The first refusal.  Everything else has been tried: what
                one sandbox's namespace holds must not keep the others from theirs.
        """
        rest = _without_elements(plan)
        made = [*rest.create, *(new for _, new in rest.change)]
        refused = _Refused()
        for item in only(Netns, made):
            with refused.noted(item.path):
                netns.create(item.path)
        if text := nft_text(plan):
            self._run_nft(text, made)
        if only(Ruleset, made):
            self.rules_seen = observe.chains(observe.table(self.nft))
        for setting in only(Sysctl, made):
            with refused.noted(setting.netns):
                write_sysctl(setting)
        missing = self._host(rest, refused)
        for path in dict.fromkeys(space_of(item) for item in made):
            if path:
                here = [i for i in made if space_of(i) == path and (path, _link(i)) not in missing]
                with refused.noted(path):
                    self._inside(path, here)
        # What a sandbox could not be given may be what replaces something: it keeps what it has.
        gone = tuple(item for item in rest.delete if not places(item) & refused.keys())
        doomed = self._delete(gone, refused)
        self._cut_udp(plan)
        if refused:
            self.remove_links(doomed)
            raise next(iter(refused.values()))
        return doomed

    def remove_links(self, names: Iterable[str]) -> None:
        """Delete links of ours, and with them what runs them.  May run in another thread."""
        names = tuple(names)
        with self._removing:
            self._remover.batch([delete_link(name) for name in names])
        for name in names:
            if name.startswith(WIREGUARD_PREFIX):
                wireguard.end(name)

    def _cut_udp(self, plan: Diff) -> None:
        """Give flows to UDP ports that changed hands a new start, and no others."""
        for version, moved in moved_udp_ports(plan).items():
            ours = local_addresses(self.netlink)
            ports: set[int | None] = {port for _, port in moved}
            # The kernel walks its whole table for each question, some 10 ms with its default
            # size, so many ports are asked for together.
            for port in ports if len(ports) <= _ASKED_SINGLY else {None}:
                stale = [
                    flow
                    for flow in conntrack.udp_flows(self.conntrack, version, port)
                    if _has_moved(flow, moved, ours)
                ]
                conntrack.cut(self.conntrack, stale)

    def _run_nft(self, text: str, made: list[Resource]) -> None:
        try:
            self.nft.run(text)
        except KernelError:
            # A set whose type changed between versions cannot be altered in place.
            # Ours alone, so it is replaced whole, in one transaction; its elements
            # come back with the next look at the kernel.
            if not only(Ruleset, made):
                raise
            rules = only(Ruleset, made)[0].text
            self.nft.run(f"add table inet {TABLE}\ndelete table inet {TABLE}\n{rules}")

    def _host(self, plan: Diff, refused: _Refused) -> set[tuple[str, str]]:
        """Do the host's own part; returns links, as (namespace, name), that could not be made."""
        with refused.noted(""):
            self._change_links(plan)
        fresh = [link for link in only(Link, plan.create) if link.kind is not LinkKind.MACVLAN]
        fresh += [new for old, new in _link_changes(plan) if made_anew(old, new)]
        missing: set[tuple[str, str]] = set()
        index = _Indexes()
        batch: list[nl.Message] = []
        for link in fresh:
            ends = {("", link.name), (link.peer_netns, link.peer_name)}
            missing |= ends
            with refused.noted(link.peer_netns):
                self._create_link(link)
                batch += [configure(index[link.name], link), set_up(index[link.name], link.name)]
                missing -= ends
        made = [*plan.create, *(new for _, new in plan.change)]
        here = [i for i in made if space_of(i) == "" and ("", _link(i)) not in missing]
        if any(_wireguard(here)):  # after its link is up: a port that is taken is refused then
            with refused.noted(""):
                self.netlink.batch(batch)
            batch = []
            with refused.noted(""):
                wireguard.configure(*_wireguard_changes(plan, missing))
        with refused.noted(""):
            self.netlink.batch([*batch, *index.messages(here)])
        return missing

    def _change_links(self, plan: Diff) -> None:
        batch: list[nl.Message] = []
        for old, new in _link_changes(plan):
            if new.netns:
                continue
            if made_anew(old, new):
                batch.append(delete_link(new.name))
                continue
            index = socket.if_nametoindex(new.name)
            batch += [set_attributes(index, new, mac=old.mac != new.mac), set_up(index, new.name)]
            if old.checksum != new.checksum:
                offload.set_tx_checksum(new.name, on=new.checksum)
            if new.peer_netns and old.mtu != new.mtu:
                with netns.inside(new.peer_netns), nl.Netlink() as sock:
                    sock.batch([set_mtu(socket.if_nametoindex(new.peer_name), new)])
        self.netlink.batch(batch)

    def _create_link(self, link: Link) -> None:
        if link.kind is LinkKind.WIREGUARD:
            wireguard.create(self.netlink, link)
            return
        target = netns.open_netns(link.peer_netns) if link.peer_netns else -1
        try:
            self.netlink.batch([new_link(link, max(target, 0), 0)])
        finally:
            if target >= 0:
                os.close(target)
        try:
            socket.if_nametoindex(link.name)
        except OSError:
            # "exists already" is success where it is ours, but it was about something else.
            what = f"{link.peer_netns} has an interface {link.peer_name} of its own"
            if link.kind is LinkKind.VXLAN:
                what = f"another VXLAN link has its number {link.vni} and port {link.port}"
            raise from_errno("create link", link.name, errno.EEXIST, what) from None
        if not link.checksum:
            offload.set_tx_checksum(link.name, on=False)

    def _macvlan(self, link: Link) -> None:
        """Made from the host, where its parent is, straight into the target namespace.

        It gets its own name only there: Linux 6.1 refuses one that the host has, too
        (__rtnl_newlink, net/core/rtnetlink.c, looks in the namespace of the socket).
        """
        require_link(link.parent)
        parent = socket.if_nametoindex(link.parent)
        first = replace(link, name=ifname("swm-", f"{link.netns}/{link.name}"))
        with netns.inside(link.netns):
            there = {name: index for index, name in socket.if_nameindex()}
        if link.name not in there:
            target = netns.open_netns(link.netns)
            try:
                self.netlink.batch([new_link(first, target, parent)])
            finally:
                os.close(target)
        with netns.inside(link.netns), nl.Netlink() as sock:
            if index := there.get(link.name, 0):
                sock.batch([mark(index, link.name)])
            else:
                index = socket.if_nametoindex(first.name)
                sock.batch([rename(index, link.name), mark(index, link.name)])

    def _inside(self, path: str, items: list[Resource]) -> None:
        for link in only(Link, items):
            self._macvlan(link)
        items = [item for item in items if is_on_link(item) or isinstance(item, Link)]
        if not items:
            return
        with netns.inside(path), nl.Netlink() as sock:
            index = _Indexes()
            names = dict.fromkeys(item.link for item in items if is_on_link(item) and item.link)
            names |= dict.fromkeys(link.name for link in only(Link, items))
            batch = [set_up(1, "lo")]
            batch += [set_up(index[name], name) for name in names if name != "lo"]
            sock.batch([*batch, *index.messages(items)])

    def _delete(self, gone: tuple[Resource, ...], refused: _Refused) -> tuple[str, ...]:
        links = only(Link, gone)
        dead = {(link.netns, link.name) for link in links}
        dead |= {(link.peer_netns, link.peer_name) for link in links if link.peer_netns}
        spaces = {item.path for item in only(Netns, gone)}
        by_place: dict[str, list[Resource]] = {}
        for item in gone:
            if is_on_link(item) and (item.netns, item.link) not in dead:
                by_place.setdefault(item.netns, []).append(item)
        for link in links:
            if link.netns:
                by_place.setdefault(link.netns, []).append(link)
        for path, items in by_place.items():
            if path not in spaces:
                with refused.noted(path):
                    self._delete_in(path, items)
        with refused.noted(""):
            wireguard.remove(item for item in _wireguard(gone) if ("", item.link) not in dead)
        for space in spaces:
            netns.remove(space)
        return tuple(link.name for link in links if not link.netns)

    def _delete_in(self, path: str, items: list[Resource]) -> None:
        """Deleting what is in a namespace that has gone is success."""
        try:
            with netns.inside(path), nl.Netlink() as sock:
                index = _Indexes(missing=0)
                batch = [delete_link(link.name) for link in only(Link, items)]
                sock.batch([*batch, *index.messages(items, delete=True)])
        except NotFound:
            return


class _Refused(dict[str, SeawayError]):
    """The first refusal by place: "" for the host, or the namespace it was about."""

    @contextmanager
    def noted(self, place: str) -> Iterator[None]:
        """Note a refusal and go on: what others need does not depend on it."""
        try:
            yield
        except SeawayError as err:
            self.setdefault(place, err)


class _Indexes(dict[str, int]):
    """Interface indexes by name, looked up once in the namespace the thread is in."""

    def __init__(self, missing: int | None = None) -> None:
        super().__init__()
        self._missing = missing

    def __missing__(self, name: str) -> int:
        try:
            self[name] = socket.if_nametoindex(name)
        except OSError as err:
            if self._missing is not None:
                return self._missing
            raise from_errno("find link", name, err.errno or errno.ENODEV) from None
        return self[name]

    def messages(self, items: Iterable[Resource], *, delete: bool = False) -> list[nl.Message]:
        """Pack those of *items* that live on links.

        Addresses come before the routes that prefer them as source; to delete,
        the other way round.  With links allowed to be missing, what was on them
        has gone with them.
        """
        found = [item for item in items if is_on_link(item)]
        found.sort(key=lambda item: _ORDER[type(item)], reverse=delete)
        return [
            on_link(item, self[item.link] if item.link else 0, delete=delete)
            for item in found
            if not item.link or self[item.link]
        ]


_ORDER = {LinkAddress: 0, Neighbour: 1, Fdb: 1, Route: 2}


def made_anew(old: Link, new: Link) -> bool:
    """Does *new* replace *old*, and all that is on it, since the kernel cannot change it so?"""
    fixed = ((link.kind, link.vni, link.port, link.family) for link in (old, new))
    return len(set(fixed)) > 1


def _wireguard(items: Iterable[Resource]) -> Iterator[WireGuardDevice | WireGuardPeer]:
    return (item for item in items if isinstance(item, WireGuardDevice | WireGuardPeer))


def _wireguard_changes(
    plan: Diff, missing: Container[tuple[str, str]]
) -> tuple[list[wireguard.Device], list[wireguard.Peer]]:
    """Pair what WireGuard links have with what they shall have, but for links in *missing*."""
    devices: list[wireguard.Device] = []
    peers: list[wireguard.Peer] = []
    for old, new in (*((None, item) for item in plan.create), *plan.change):
        if ("", _link(new)) in missing:
            continue
        if isinstance(new, WireGuardDevice):
            devices.append((old if isinstance(old, WireGuardDevice) else None, new))
        if isinstance(new, WireGuardPeer):
            peers.append((old if isinstance(old, WireGuardPeer) else None, new))
    return devices, peers


def places(item: Resource) -> set[str]:
    """Return the namespaces whose sandbox an item belongs to; none for what is the host's."""
    if isinstance(item, Netns):
        return {item.path}
    other = item.peer_netns if isinstance(item, Link) else ""
    return {space_of(item), other} - {""}


def _link(item: Resource) -> str:
    if isinstance(item, Link):
        return item.name
    return "" if isinstance(item, Netns | Sysctl | Element | Ruleset) else item.link


def space_of(item: Resource) -> str:
    """Return the namespace an item is in; "" for the host's."""
    if isinstance(item, Netns | Element | Ruleset | WireGuardDevice | WireGuardPeer):
        return ""
    return item.netns


def _link_changes(plan: Diff) -> list[tuple[Link, Link]]:
    return [
        (old, new)
        for old, new in plan.change
        if isinstance(old, Link) and isinstance(new, Link) and not new.netns
    ]


def write_sysctl(setting: Sysctl) -> None:
    """Write one kernel setting, in its namespace.

    Raises:
        KernelError: There is no such setting, or it does not take the value.
    """
    path = Path("/proc/sys", *setting.name.split("."))
    with netns.inside(setting.netns):
        try:
            path.write_text(setting.value)
        except OSError as err:
            raise from_errno("set sysctl", setting.name, err.errno or errno.EIO) from None
