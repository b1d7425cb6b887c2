"""What goes to etcd and comes back: its v3 messages as the JSON gateway writes them.

Pure values, no socket.  In this JSON keys and values are base64 and 64-bit
numbers are text; zero, false and empty fields are left out.

Source:
    etcd 3.4, api-reference "gRPC gateway"; etcdserver/etcdserverpb/rpc.proto.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from seaway.errors import Conflict, StoreError

_NOT_DONE: Final = (
    "no leader",
    "not supported for learner",
    "too many requests",
    "space exceeded",
    "error while dialing",
)
"""Parts of transient refusals that etcd makes before it looks at a request."""

_TRANSIENT: Final = frozenset({1, 2, 4, 8, 13, 14})
"""gRPC codes that another member, or the same one later, may not answer with: cancelled, unknown,
deadline exceeded, resource exhausted, internal, unavailable (grpc/statuscodes)."""


class Unsure(StoreError):
    """A change was sent, and nobody can say whether it was made: read again before going on."""


class Compacted(StoreError):
    """History starts later than asked: read everything anew.

    Attributes:
        revision: The oldest there is; 0 if etcd does not say.
    """

    def __init__(self, revision: int = 0) -> None:
        super().__init__(f"the store's history before revision {revision} is gone: read it anew")
        self.revision = revision


class Refused(StoreError):
    """etcd understood the request and will not do it.

    Attributes:
        reason: In its own words.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(f"the cluster's store refuses: {reason}{advice and ': ' + advice}")
        self.reason = reason


class Kv(msgspec.Struct, frozen=True, gc=False):
    """One key with its value.

    Attributes:
        mod_revision: Of the store when it was last written.
        create_revision: Of the store when it was made.
        lease: What it lives and dies with; 0: nothing.
    """

    key: str
    value: bytes
    mod_revision: int
    create_revision: int = 0
    lease: int = 0


class Clash(Conflict):
    """A key is not as a transaction wants it; nothing was written.

    Attributes:
        key: The first such key.
        found: What is there; None if nothing is.
    """

    def __init__(self, key: str, found: Kv | None, *, taken: bool) -> None:
        what = "exists already" if taken else "was changed" if found else "has gone"
        super().__init__(f"{key} {what}: someone else was first, try again")
        self.key = key
        self.found = found


@dataclass(frozen=True, slots=True)
class At:
    """The key must be at this mod_revision; 0: must not exist."""

    key: str
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Holds:
    """The key must exist and have this value."""

    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Empty:
    """No key may start so."""

    key: str


@dataclass(frozen=True, slots=True)
class Write:
    """Set a key, whatever it was; with *lease* it goes when that ends."""

    key: str
    value: bytes
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Erase:
    """Delete a key, or all that start so; fine if there is none."""

    key: str
    prefix: bool = False


Compare = At | Holds | Empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One key was written or deleted.

    Attributes:
        value: None: deleted.
        revision: The store's, when that happened.
    """

    key: str
    value: bytes | None
    revision: int
    lease: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One of etcd's members.

    Attributes:
        id: etcd's number for it.
        name: "" until it has been started for the first time.
        learner: It gets all that is written but has no vote yet.
    """

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    learner: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How one member is.

    Attributes:
        cluster: etcd's number for the cluster, drawn when it was made.
        member: etcd's number for the one that answers.
        leader: Likewise for the leader; 0: there is none, and nothing can be written.
        learner: It has no vote yet.
        applied: Entries of the common log it has applied.
        size: Bytes of its database file.
        used: Bytes of it that hold something.
        errors: What is wrong, in etcd's words, such as alarms.
        version: Of etcd.
    """

    cluster: int
    member: int
    leader: int
    learner: bool
    applied: int
    size: int
    used: int
    errors: tuple[str, ...]
    version: str


# --- what comes back ------------------------------------------------------------------------------


class Header(msgspec.Struct, gc=False):
    """Goes with every answer."""

    cluster_id: int = 0
    member_id: int = 0
    revision: int = 0


class WireKv(msgspec.Struct, gc=False):
    """A Kv before its key is text."""

    key: bytes
    value: bytes = b""
    mod_revision: int = 0
    create_revision: int = 0
    lease: int = 0

    def kv(self) -> Kv:
        """Return it as the rest of Seaway knows it."""
        return Kv(
            self.key.decode(), self.value, self.mod_revision, self.create_revision, self.lease
        )


class Answer(msgspec.Struct):
    """What all answers have; alone, for requests whose answer says nothing more."""

    header: Header = msgspec.field(default_factory=Header)


class RangeAnswer(Answer):
    """To /v3/kv/range."""

    kvs: list[WireKv] = []
    more: bool = False


class _TxnPart(msgspec.Struct):
    response_range: RangeAnswer = msgspec.field(default_factory=RangeAnswer)


class TxnAnswer(Answer):
    """To /v3/kv/txn."""

    succeeded: bool = False
    responses: list[_TxnPart] = []


class LeaseAnswer(Answer):
    """To /v3/lease/grant, and inside that to /v3/lease/keepalive."""

    ttl: int = msgspec.field(default=0, name="TTL")


class LeaseKeysAnswer(Answer):
    """To /v3/lease/timetolive, of a lease that there may not be."""

    ttl: int = msgspec.field(default=0, name="TTL")
    granted: int = msgspec.field(default=0, name="grantedTTL")
    keys: list[bytes] = []


class KeepaliveAnswer(msgspec.Struct):
    """To /v3/lease/keepalive, a stream of one."""

    result: LeaseAnswer

    @property
    def header(self) -> Header:
        """As other answers have it."""
        return self.result.header


class WireMember(msgspec.Struct):
    """A Member as etcd writes it."""

    id: int = msgspec.field(default=0, name="ID")
    name: str = ""
    peer_urls: list[str] = msgspec.field(default_factory=list, name="peerURLs")
    client_urls: list[str] = msgspec.field(default_factory=list, name="clientURLs")
    learner: bool = msgspec.field(default=False, name="isLearner")

    def member(self) -> Member:
        """Return it as the rest of Seaway knows it."""
        return Member(
            id=self.id,
            name=self.name,
            peer_urls=tuple(self.peer_urls),
            client_urls=tuple(self.client_urls),
            learner=self.learner,
        )


class MembersAnswer(Answer):
    """To all of /v3/cluster/member/; *member* only where one was added."""

    members: list[WireMember] = []
    member: WireMember = msgspec.field(default_factory=WireMember)


class StatusAnswer(Answer, rename="camel"):
    """To /v3/maintenance/status."""

    version: str = ""
    db_size: int = 0
    db_size_in_use: int = 0
    leader: int = 0
    raft_applied_index: int = 0
    errors: list[str] = []
    is_learner: bool = False

    def status(self) -> Status:
        """Return it as the rest of Seaway knows it."""
        return Status(
            cluster=self.header.cluster_id,
            member=self.header.member_id,
            leader=self.leader,
            learner=self.is_learner,
            applied=self.raft_applied_index,
            size=self.db_size,
            used=self.db_size_in_use,
            errors=tuple(self.errors),
            version=self.version,
        )


class WireEvent(msgspec.Struct):
    """An Event as etcd writes it."""

    kv: WireKv
    type: str = "PUT"

    def event(self) -> Event:
        """Return it as the rest of Seaway knows it."""
        kv = self.kv
        value = kv.value if self.type == "PUT" else None
        return Event(key=kv.key.decode(), value=value, revision=kv.mod_revision, lease=kv.lease)


class WatchAnswer(msgspec.Struct):
    """What one line of a watch's stream says."""

    canceled: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    fragment: bool = False
    events: list[WireEvent] = []


class StreamError(msgspec.Struct):
    """What a stream ends with when it fails."""

    message: str = ""
    grpc_code: int = 14


class WatchLine(msgspec.Struct):
    """One line of a watch's stream."""

    result: WatchAnswer | None = None
    error: StreamError | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer with a status other than 200.

    Attributes:
        error: etcd's words.
        code: gRPC's.
    """

    error: str
    code: int

    @property
    def words(self) -> str:
        """What it says, without who says it."""
        return self.error.removeprefix("etcdserver: ")

    @property
    def transient(self) -> bool:
        """Somebody else, or later, may answer otherwise."""
        return self.code in _TRANSIENT and "unhealthy cluster" not in self.error

    @property
    def surely_not_done(self) -> bool:
        """Nothing was changed."""
        return not self.transient or any(part in self.error.lower() for part in _NOT_DONE)

    def exception(self) -> StoreError:
        """Return what to raise where it is final."""
        if "has been compacted" in self.error:
            return Compacted()
        if "too many operations" in self.error:
            return Refused(self.error, "etcd has to be started with --max-txn-ops 1024")
        return Refused(self.error)


class _WireRefusal(msgspec.Struct):
    code: int
    error: str = ""
    message: str = ""  # etcd 3.6 has only this


class _WireStreamRefusal(msgspec.Struct):
    error: StreamError


def refusal(status: int, body: bytes) -> Refusal:
    """Read an answer with a status other than 200.

    One that is not etcd's counts as unavailable (14): something stands in between.
    """
    with suppress(msgspec.MsgspecError):
        found = msgspec.json.decode(body, type=_WireRefusal)
        return Refusal(found.error or found.message, found.code)
    with suppress(msgspec.MsgspecError):
        error = msgspec.json.decode(body, type=_WireStreamRefusal).error
        return Refusal(error.message, error.grpc_code)
    return Refusal(f"status {status}", 14)


# --- what goes out --------------------------------------------------------------------------------


def prefix_end(prefix: str) -> bytes:
    """Return the first key behind all that start with *prefix*; b"\\0" if there is none."""
    head = prefix.encode().rstrip(b"\xff")
    return head[:-1] + bytes([head[-1] + 1]) if head else b"\0"


def range_request(start: bytes, end: bytes, limit: int, revision: int) -> dict[str, Any]:
    """Ask for at most *limit* keys from *start* up to before *end*, as of *revision* (0: now)."""
    return {"key": start, "range_end": end, "limit": limit, "revision": revision}


def txn_request(
    compares: Sequence[Compare], puts: Iterable[Write], deletes: Iterable[Erase]
) -> dict[str, Any]:
    """Ask for all or nothing; the answer to a failure holds what each compared key is."""
    erased = (
        {"request_delete_range": {"key": e.key.encode(), "range_end": prefix_end(e.key)}}
        if e.prefix
        else {"request_delete_range": {"key": e.key.encode()}}
        for e in deletes
    )
    written = (
        {"request_put": {"key": w.key.encode(), "value": w.value, "lease": w.lease}} for w in puts
    )
    return {
        "compare": [_compare(one) for one in compares],
        "success": [*written, *erased],
        "failure": [{"request_range": _look(one)} for one in compares],
    }


def _look(one: Compare) -> dict[str, Any]:
    if isinstance(one, Empty):
        return {"key": one.key.encode(), "range_end": prefix_end(one.key), "limit": 1}
    return {"key": one.key.encode()}


def _compare(one: Compare) -> dict[str, Any]:
    key = one.key.encode()
    if isinstance(one, Empty):
        # Of a range without a key, etcd compares one that was never made (applyCompares).
        span = {"key": key, "range_end": prefix_end(one.key)}
        return span | {"target": "CREATE", "result": "EQUAL", "create_revision": 0}
    if isinstance(one, At):
        return {"key": key, "target": "MOD", "result": "EQUAL", "mod_revision": one.revision}
    return {"key": key, "target": "VALUE", "result": "EQUAL", "value": one.value}


def clash(compares: Sequence[Compare], answer: TxnAnswer) -> Clash:
    """Say which key made a transaction fail."""
    for one, part in zip(compares, answer.responses, strict=True):
        found = next((kv.kv() for kv in part.response_range.kvs), None)
        if not _satisfied(one, found):
            return Clash(one.key, found, taken=one == At(one.key, 0))
    raise StoreError("the cluster's store failed a transaction without a reason: try again")


def _satisfied(one: Compare, found: Kv | None) -> bool:
    if isinstance(one, Empty):
        return found is None
    if isinstance(one, At):
        return one.revision == (found.mod_revision if found else 0)
    return found is not None and found.value == one.value


def watch_request(prefix: str, revision: int) -> bytes:
    """Ask to be told of *prefix* from *revision* on."""
    wanted = {
        "key": prefix.encode(),
        "range_end": prefix_end(prefix),
        "start_revision": revision,
        "fragment": True,
    }
    return msgspec.json.encode({"create_request": wanted})


class WatchState:
    """Puts the lines of one watch's stream together."""

    def __init__(self) -> None:
        self._parts: list[Event] = []

    def take(self, lines: Iterable[bytes]) -> list[Event]:
        """Read some lines and return what they tell, by revision; [] if nothing yet.

        What one transaction wrote is never divided.

        Raises:
            Compacted: The start is too far in the past.
            StoreError: The stream ended with an error.
        """
        events: list[Event] = []
        for line in lines:
            answer = _watch_answer(line)
            self._parts += [event.event() for event in answer.events]
            if not answer.fragment:
                events += self._parts
                self._parts = []
        return events


def _watch_answer(line: bytes) -> WatchAnswer:
    try:
        read = _WATCH_LINE.decode(line)
    except msgspec.MsgspecError as err:
        raise StoreError(f"the cluster's store sent what is no watch answer: {err}") from err
    answer = read.result
    if answer is None:
        why = read.error.message if read.error else "an empty answer"
        raise StoreError(f"the cluster's store ended a watch: {why}")
    if answer.compact_revision:
        raise Compacted(answer.compact_revision)
    if answer.canceled:
        raise StoreError(
            f"the cluster's store ended a watch: {answer.cancel_reason or 'no reason'}"
        )
    return answer


_WATCH_LINE: Final = msgspec.json.Decoder(WatchLine, strict=False)
