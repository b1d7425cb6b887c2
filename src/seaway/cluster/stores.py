"""Which hosts run etcd, and how one becomes a member and stops being one.

Each host decides for itself, from what all of them see; etcd lets one learner
in at a time.  Every step may be the last before a crash: running it again goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

from seaway.cluster.etcd_process import EtcdMember, Urls
from seaway.errors import Conflict, NotFound, StoreError
from seaway.model.cluster import Host, HostId
from seaway.store.etcd import Etcd, Member, Refused, Unsure

_SYNC_SECONDS = 0.5
_SIGNERS: Final = 3

_LATER: Final = (
    "too many learner",  # one at a time
    "in sync with leader",
    "not enough started",
    "unhealthy cluster",  # the members have to be connected for five seconds
    "member not found",  # it was removed within this second, and ids are made of seconds
)
"""Parts of the reasons for which etcd may do tomorrow what it refuses now."""


def wanted_stores(
    hosts: Sequence[Host], members: Collection[HostId], alive: Collection[HostId], size: int
) -> tuple[HostId, ...]:
    """Say which hosts should run etcd.

    Members stay, also while they are dead: one that is back after an hour
    costs less than a copy of everything, and `node rm` is for those that are not.
    A drained member goes when another takes its place.  An odd number
    remains: an even one tolerates no more deaths and needs one more to agree.

    Args:
        hosts: All in the cluster.
        members: Those that run etcd now, or should.
        alive: Those that hold their lease.
        size: At most how many.

    Returns:
        The longest-joined first; () only if there is nobody to choose from.
    """
    ordered = sorted(hosts, key=lambda host: (host.joined, host.id))
    stay = [h for h in ordered if h.id in members and not h.drained]
    stay.sort(key=lambda host: host.id not in alive)  # if one is too many, a dead one is
    leaving = [h for h in ordered if h.id in members and h.drained]
    # Others must reach a member, and etcd wants its certificate to name where it calls from.
    fresh = [
        h
        for h in ordered
        if h.id in alive and h.id not in members and not h.drained and h.behind is None
    ]
    chosen = stay + fresh + leaving
    count = min(size, len(chosen))
    wanted = {h.id for h in chosen[: count - (count + 1) % 2]}
    return tuple(h.id for h in ordered if h.id in wanted)


def wanted_signers(hosts: Sequence[Host], alive: Collection[HostId]) -> tuple[HostId, ...]:
    """Say which hosts should have the authority's key where somebody else runs the store.

    Returns:
        At most three, the longest-joined first: one that dies must not leave the others without
        anybody who renews their certificates.
    """
    able = [host for host in hosts if host.id in alive and host.behind is None]
    return tuple(h.id for h in sorted(able, key=lambda host: (host.joined, host.id))[:_SIGNERS])


def find_member(members: Sequence[Member], name: HostId, peers: Urls) -> Member | None:
    """Find a host's member; one that has never been started has no name yet."""
    for member in members:
        if member.name == name or (not member.name and set(member.peer_urls) & set(peers)):
            return member
    return None


async def join_as_learner(
    client: Etcd, process: EtcdMember, name: HostId, peers: Urls
) -> tuple[tuple[str, Urls], ...] | None:
    """Become a member of the others' etcd, as far as that is done by asking them.

    Data of an earlier membership is wiped *before* the new one begins, so that
    data beside an announced member is always that member's.

    Args:
        client: Talks to the others.

    Returns:
        All members, as EtcdConfig takes them, to start etcd with; None if that has to wait,
        as when somebody else is about to join: try again a second later.
    """
    members = await _members(client)
    mine = find_member(members, name, peers)
    if mine is not None and mine.name and not process.has_data:
        # The disk was lost. A member with nothing that the others believe to have something
        # would break its promises.
        await client.remove_member(mine.id)
        mine = None
    if mine is None:
        await process.wipe()
        announced = await _announce(client, name, peers)
        if announced is None:
            return None
        members = announced
    mine = find_member(members, name, peers)
    return tuple(
        (name, peers) if member == mine else (member.name or f"{member.id:x}", member.peer_urls)
        for member in sorted(members, key=lambda member: member.id)
    )


async def _members(client: Etcd) -> tuple[Member, ...]:
    """List the members as of now: reading a key first makes who answers catch up."""
    await client.get("/")
    return await client.members()


async def _announce(client: Etcd, name: HostId, peers: Urls) -> tuple[Member, ...] | None:
    try:
        return (await client.add_learner(peers))[1]
    except Refused as err:
        if any(words in err.reason for words in _LATER):
            return None
        if "Peer URLs already exists" not in err.reason:
            raise
    except Unsure:
        pass
    members = await _members(client)
    if find_member(members, name, peers) is None:
        raise StoreError("the store did not take this host as a member: try again")
    return members


async def promote(client: Etcd, name: HostId, peers: Urls) -> None:
    """Get a vote, as soon as everything has been copied; waits for that.

    Raises:
        NotFound: It is no member.
        StoreError: The others do not answer.
    """
    while True:
        mine = find_member(await client.members(), name, peers)
        if mine is None:
            raise NotFound("this host is no member of the store: it has to join it first")
        if not mine.learner:
            return
        try:
            await client.promote(mine.id)
        except Refused as err:
            if not any(words in err.reason for words in _LATER):
                raise
        except Unsure:
            pass
        else:
            return
        await asyncio.sleep(_SYNC_SECONDS)


async def leave(
    client: Etcd,
    process: EtcdMember,
    name: HostId,
    peers: Urls,
    successors: Collection[HostId] = (),
) -> None:
    """Stop being a member, and delete the data; fine if it is none.

    Args:
        successors: Who must have a vote before.

    Raises:
        Conflict: It is the only one, and all is lost with it, or a successor has no vote yet.
        Refused: Too few of the others are up, or have been for five seconds.
    """
    members = await _members(client)
    mine = find_member(members, name, peers)
    if mine is not None:
        voters = {one.name for one in members if one.id != mine.id and not one.learner}
        if not voters:
            raise Conflict("this host has the cluster's only store: let another host join first")
        if missing := set(successors) - voters:
            raise Conflict(f"{min(missing)} has to have its part of the store first: wait")
        await client.remove_member(mine.id)
    await process.wipe()
