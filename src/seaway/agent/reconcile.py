"""Keep the kernel at the desired state: small steps for changes, full looks for the rest.

A change plans one object and applies the difference to what that object had
before.  An audit reads everything we own from the kernel and compares it with
everything desired: at start, when somebody else touched our things, after a
change that failed, and on a timer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Hashable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

import structlog

from seaway.agent.events import Events
from seaway.errors import SeawayError
from seaway.kernel import netns, observe
from seaway.kernel.apply import Applier, only, places, space_of
from seaway.kernel.messages import is_on_link
from seaway.model.names import GATEWAY_LINK
from seaway.plan.diff import Diff, diff
from seaway.plan.resources import Link, LinkKind, Resource, Ruleset, Sysctl

log = structlog.get_logger()

Plans = Mapping[str, tuple[Resource, ...]]
"""Everything desired, by the object it is for ("host", "network/<id>", "sandbox/<id>")."""


_GATEWAY = ("link", "", GATEWAY_LINK)  # key of the link that every host has once we are there
_FAILURES_MAX = 16  # beyond it, waiting longer makes no difference
_TRIES = 3  # looks that a change may spoil before one is taken with everything else waiting


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds."""

    settle: float = 0.05  # let a burst of announcements arrive before looking once
    retry: float = 1.0  # after an audit that failed
    resync: float = 300.0  # even when nothing seems to have changed


class Reconciler:
    """Applies plans and repairs drift, in the namespace it was made in.

    Attributes:
        known: Every resource that we believe to stand, by key.
        repairs: How many resources audits had to put right since the start.
        hold: Audits delete nothing, since not all that is desired is known.
        error: Why the last audit failed; "" if it did not.
        unseen: Namespaces that the last look could not read, and why.
    """

    def __init__(
        self, applier: Applier, plans: Callable[[], Plans], netns_dir: str, events: Events
    ) -> None:
        self._applier = applier
        self._plans = plans
        self._netns_dir = netns_dir
        self._events = events
        self._applied: dict[str, tuple[Resource, ...]] = {}
        self.known: dict[Hashable, Resource] = {}
        self._kicked = asyncio.Event()
        self._why = ""
        self._remover = ThreadPoolExecutor(1, thread_name_prefix="remove-links")
        self._looker = ThreadPoolExecutor(1, thread_name_prefix="look")
        self._eyes = observe.Eyes()
        self._changes = 0  # counts attempts to change the kernel, so that a look knows of them
        self.repairs = 0
        self.error = ""
        self.hold = False
        self.unseen: dict[str, str] = {}
        self._failures = 0

    def close(self) -> None:
        """Let the threads finish."""
        self._remover.shutdown()
        self._looker.shutdown()
        self._eyes.close()

    # -- one change ------------------------------------------------------------------------

    async def change(self, name: str, resources: tuple[Resource, ...]) -> None:
        """Make the object called *name* have exactly *resources*; () removes it.

        Raises:
            KernelError: Refused.  An audit is on its way that puts the kernel right.
        """
        await self.change_all({name: resources})

    async def change_all(self, plans: Mapping[str, tuple[Resource, ...]]) -> None:
        """Do what change() does for several objects in one step.

        What one of them had and another has now is changed and never missing in between.
        """
        had = [item for name in plans for item in self._applied.get(name, ())]
        plan = diff([item for resources in plans.values() for item in resources], had)
        if not plan:
            self._remember_all(plans)
            return
        name = next(iter(plans))
        self._changes += 1
        for item in plan.delete:
            self.known.pop(item.key, None)
        try:
            doomed = self._applier.apply(plan)
        except SeawayError as err:
            await self._try_in_full(name, plan, err)
            return
        self._remember_all(plans)
        if doomed:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._remover, self._applier.remove_links, doomed)

    async def _try_in_full(self, name: str, plan: Diff, err: SeawayError) -> None:
        """Somebody may have touched what the step builds on: an audit puts that right as well.

        Raises:
            SeawayError: *err*, if the audit fails too, and it was about this object.
        """
        why = f"{name}: a change failed"
        try:
            self._put_right(await self.look_aside(), why)
        except SeawayError:
            self.kick(why)
            if not self._has_come_true(plan, await self.look_aside()):
                self._take_back(plan)
                raise err from None

    def _has_come_true(self, plan: Diff, left: Diff) -> bool:
        """Is nothing of *plan* among what is *left* to do, or where we cannot look?"""
        waiting = {item.key for item in (*_made(left), *left.delete)}
        return not any(
            item.key in waiting or places(item) & self.unseen.keys()
            for item in (*_made(plan), *plan.delete)
        )

    def _take_back(self, plan: Diff) -> None:
        """Remove the links that a failed plan made inside namespaces: no audit looks for them
        where nothing is desired."""
        inner = tuple(link for link in only(Link, plan.create) if link.netns)
        if inner:
            with suppress(SeawayError):
                self._applier.apply(Diff(delete=inner))

    def drop_inner_links(self, name: str, ifnames: Container[str]) -> None:
        """Remove those of an object's links that are made inside its namespace, ahead of change().

        To be called before the state forgets them: an agent that is killed in
        between finds links on the host by their names, but these by its state alone.

        Raises:
            KernelError: Refused.
        """
        links = only(Link, self._applied.get(name, ()))
        inner = tuple(link for link in links if link.netns and link.name in ifnames)
        if inner:
            self._changes += 1
            self._applier.apply(Diff(delete=inner))

    def _remember_all(self, plans: Mapping[str, tuple[Resource, ...]]) -> None:
        for name, resources in plans.items():
            self._remember(name, resources)

    def _remember(self, name: str, resources: tuple[Resource, ...]) -> None:
        if resources:
            self._applied[name] = resources
            self.known.update((item.key, item) for item in resources)
        else:
            self._applied.pop(name, None)

    # -- everything --------------------------------------------------------------------------

    def desired(self) -> list[Resource]:
        """List everything this host should have."""
        return [item for resources in self._plans().values() for item in resources]

    def look(self) -> Diff:
        """Compare the kernel with the desired state; changes nothing."""
        return diff(*self._observe(self.desired()))

    async def look_aside(self) -> Diff:
        """Do what look() does in a thread, while requests and questions go on being answered.

        A change in the meantime makes what was seen stale; then it looks again,
        and in the end without letting anything come between.
        """
        loop = asyncio.get_running_loop()
        for _ in range(_TRIES):
            before, want = self._changes, self.desired()
            seen = await loop.run_in_executor(self._looker, self._observe, want)
            if before == self._changes:
                return diff(*seen)
        return self.look()

    def audit(self, why: str) -> Diff:
        """Make the kernel match in full; returns what had to be done.

        Raises:
            KernelError: Refused; the next audit tries again.
        """
        return self._put_right(self.look(), why)

    def _put_right(self, plan: Diff, why: str) -> Diff:
        began = time.perf_counter()
        if self.hold:
            plan = replace(plan, delete=())
        try:
            if plan:
                self._changes += 1
                self._applier.remove_links(self._applier.apply(plan))
        finally:
            # Also if one sandbox was refused something: what others have must be known, for it
            # to be repaired, and to go when they go.
            plans = self._plans()
            self._applied = dict(plans)
            self.known = {item.key: item for items in plans.values() for item in items}
        if plan:
            lines = plan.lines()
            # On a host that has nothing of ours yet, nothing was broken either.
            first = why == "start" and _GATEWAY in (item.key for item in plan.create)
            self.repairs += 0 if first else len(lines)
            took = f"{(time.perf_counter() - began) * 1e3:.1f}"
            facts = {"why": why, "steps": len(lines), "first": lines[0], "ms": took}
            self._events.add("kernel_prepared" if first else "kernel_repaired", "host", **facts)
        return plan

    def _observe(self, want: list[Resource]) -> tuple[list[Resource], list[Resource]]:
        """Return what can be had now, and what there is.

        What is in a namespace that cannot be read is left out of both: whoever lives
        in it must not keep the rest of the host from being put right.
        """
        listing, have = self._eyes.see()
        have += observe.kept_netns(self._netns_dir)
        have += observe.sysctls(only(Sysctl, want))
        if listing and observe.chains(listing) == self._applier.rules_seen:
            have += only(Ruleset, want)
        inside, self.unseen = _inside(want)
        want, have = (
            [item for item in items if space_of(item) not in self.unseen]
            for items in (want, have + inside)
        )
        return want, _mark_lost(want, have, self.unseen)

    # -- when --------------------------------------------------------------------------------

    def kick(self, why: str) -> None:
        """Ask for an audit soon.  Cheap; call it as often as you like."""
        self._why = why
        self._kicked.set()

    async def run(self, pace: Pace | None = None) -> None:
        """Audit when kicked and on a timer, until cancelled."""
        pace = pace or Pace()
        while True:
            wait = pace.resync
            if self._failures:
                wait = min(pace.retry * 2 ** (self._failures - 1), pace.resync)
            try:
                async with asyncio.timeout(wait):
                    await self._kicked.wait()
                await asyncio.sleep(pace.settle)
            except TimeoutError:
                self._why = "timer"
            self._kicked.clear()  # before the audit: a kick during it counts again
            with self._noting_failure(self._why):
                self._put_right(await self.look_aside(), self._why)

    def try_audit(self, why: str) -> None:
        """Audit, keeping the error for status() instead of raising it."""
        with self._noting_failure(why):
            self.audit(why)

    @contextmanager
    def _noting_failure(self, why: str) -> Iterator[None]:
        try:
            yield
        except SeawayError as err:
            self.error = str(err)
        except Exception as err:
            self.error = f"{type(err).__name__}: {err}"
            log.exception("audit_crashed", why=why)
        else:
            self.error, self._failures = "", 0
            return
        self._failures = min(self._failures + 1, _FAILURES_MAX)
        log.warning("audit_failed", why=why, error=self.error)


def _made(plan: Diff) -> list[Resource]:
    return [*plan.create, *(new for _, new in plan.change)]


def _spaces(want: Iterable[Resource]) -> dict[str, set[str]]:
    """Map every namespace other than the host's to the links we have in it."""
    spaces: dict[str, set[str]] = {}
    for item in want:
        if isinstance(item, Link) and item.peer_netns:
            spaces.setdefault(item.peer_netns, set()).add(item.peer_name)
        elif isinstance(item, Link) and item.netns:
            spaces.setdefault(item.netns, set()).add(item.name)
    return spaces


def _inside(want: Iterable[Resource]) -> tuple[list[Resource], dict[str, str]]:
    """Read the namespaces that *want* reaches into; returns those that could not be read, too."""
    have: list[Resource] = []
    unseen: dict[str, str] = {}
    for path, names in _spaces(want).items():
        try:
            if netns.exists(path):
                have += observe.inside(path, names)
        except SeawayError as err:
            unseen[path] = str(err)
        except Exception as err:  # what there may be in a stranger's namespace, nobody knows
            unseen[path] = f"{type(err).__name__}: {err}"
            log.exception("look_crashed", netns=path)
    return have, unseen


def _mark_lost(
    want: list[Resource], have: list[Resource], unseen: Container[str]
) -> list[Resource]:
    """A veth whose peer is not in its namespace, or has another MAC address than the fence
    knows, is marked, so that it is made anew, with all that is on it.

    The peers themselves are no resources of their own: they come and go with
    the host side.  Those in *unseen* namespaces are taken to be as they should.
    """
    peers = {(w.peer_netns, w.peer_name): w for w in only(Link, want) if w.peer_netns}
    seen = {(h.netns, h.name): h.mac for h in only(Link, have)}
    lost = {
        w.name: place
        for place, w in peers.items()
        if seen.get(place) != w.peer_mac and place[0] not in unseen
    }
    dead = {*lost.values(), *(("", name) for name in lost)}
    kept: list[Resource] = []
    for item in have:
        if isinstance(item, Link) and (item.netns, item.name) in peers:
            continue
        if isinstance(item, Link) and not item.netns and item.name in lost:
            kept.append(Link(name=item.name, kind=LinkKind.LOST))
        elif not (is_on_link(item) and (item.netns, item.link) in dead):
            kept.append(item)
    return kept
