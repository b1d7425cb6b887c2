"""etcd's JSON: requests as it wants them, answers and streams as it writes them."""

from __future__ import annotations

import json

import msgspec
import pytest

from seaway.errors import StoreError
from seaway.store.etcd_wire import (
    At,
    Clash,
    Compacted,
    Erase,
    Holds,
    Kv,
    RangeAnswer,
    Refused,
    StatusAnswer,
    TxnAnswer,
    WatchState,
    Write,
    clash,
    prefix_end,
    refusal,
    txn_request,
    watch_request,
)


def line(**result):
    """One line of a watch's stream; *at* gives it an event for each (key, revision)."""
    events = [
        {"kv": {"key": msgspec.to_builtins(key), "mod_revision": str(revision)}}
        for key, revision in result.pop("at", ())
    ]
    return json.dumps({"result": {**result, "events": events}}).encode()


def keys(events):
    """What events tell of."""
    return [(event.key, event.revision) for event in events]


@pytest.mark.parametrize(
    ("prefix", "end"),
    [("/a/", b"/a0"), ("a", b"b"), ("", b"\0"), ("ü", b"\xc3\xbd")],
)
def test_a_range_ends_behind_its_prefix(prefix, end):
    """The last byte is counted up; all keys end at NUL."""
    assert end == prefix_end(prefix)


def test_a_transaction_as_etcd_wants_it():
    """Base64 keys, one operation each, and a failure branch that reads what was compared."""
    request = txn_request([At("k", 3), Holds("m", b"v")], [Write("w", b"1", 7)], [Erase("d")])

    assert {
        "compare": [
            {"key": "aw==", "target": "MOD", "result": "EQUAL", "mod_revision": 3},
            {"key": "bQ==", "target": "VALUE", "result": "EQUAL", "value": "dg=="},
        ],
        "success": [
            {"request_put": {"key": "dw==", "value": "MQ==", "lease": 7}},
            {"request_delete_range": {"key": "ZA=="}},
        ],
        "failure": [{"request_range": {"key": "aw=="}}, {"request_range": {"key": "bQ=="}}],
    } == msgspec.to_builtins(request)


def test_deleting_a_prefix_has_an_end():
    """Without one it would be a single key."""
    (erase,) = txn_request([], [], [Erase("/a/", prefix=True)])["success"]

    assert {"key": b"/a/", "range_end": b"/a0"} == erase["request_delete_range"]


def test_numbers_come_as_text_and_may_be_left_out():
    """A range's answer, in the words of etcd 3.4."""
    answer = msgspec.json.decode(
        b'{"header":{"cluster_id":"324952591200643719","revision":"9"},'
        b'"kvs":[{"key":"YQ==","create_revision":"8","mod_revision":"9","version":"2","lease":"77"'
        b"}]}",
        type=RangeAnswer,
        strict=False,
    )

    assert 9 == answer.header.revision
    assert not answer.more
    assert [Kv("a", b"", 9, 8, 77)] == [kv.kv() for kv in answer.kvs]


def test_a_status_tells_leader_size_and_alarms():
    """In the words of etcd 3.4, which leaves out what is 0."""
    status = msgspec.json.decode(
        b'{"header":{"cluster_id":"5","member_id":"6"},"version":"3.4.23","dbSize":"20480",'
        b'"raftIndex":"11","raftAppliedIndex":"11","dbSizeInUse":"16384","isLearner":true,'
        b'"errors":["etcdserver: no leader"]}',
        type=StatusAnswer,
        strict=False,
    ).status()

    assert (5, 6, 0, True, 11) == (
        *(status.cluster, status.member, status.leader, status.learner),
        status.applied,
    )
    assert (20480, 16384, ("etcdserver: no leader",)) == (status.size, status.used, status.errors)


def test_the_first_key_that_differs_is_named():
    """Keys before it are as wanted."""
    answer = msgspec.json.decode(
        b'{"responses":[{"response_range":{"kvs":[{"key":"YQ==","mod_revision":"3"}]}},'
        b'{"response_range":{}},{"response_range":{}}]}',
        type=TxnAnswer,
        strict=False,
    )
    found = clash([At("a", 3), At("b"), Holds("c", b"x")], answer)

    assert isinstance(found, Clash)
    assert ("c", None) == (found.key, found.found)
    with pytest.raises(StoreError, match="without a reason"):
        clash([At("a", 3), At("b"), At("c")], answer)


@pytest.mark.parametrize(
    ("body", "words", "transient", "surely_not_done"),
    [
        ('{"error":"etcdserver: no leader","message":"x","code":14}', "no leader", True, True),
        ('{"error":"etcdserver: request timed out","code":14}', "timed out", True, False),
        ('{"error":"rpc not supported for learner","code":14}', "learner", True, True),
        ('{"error":"etcdserver: too many requests","code":8}', "many", True, True),
        ('{"error":"etcdserver: unhealthy cluster","code":14}', "unhealthy", False, True),
        ('{"error":"etcdserver: duplicate key","code":3}', "duplicate", False, True),
        ('{"code":5,"message":"not found","details":[]}', "not found", False, True),
        ('{"error":{"grpc_code":14,"message":"no leader"}}', "no leader", True, True),
        ("<html>proxy</html>", "status 502", True, False),
        ("[]", "status 502", True, False),
    ],
)
def test_refusals_say_whether_another_may_be_asked(body, words, transient, surely_not_done):
    """As etcd 3.4 writes them, streams and 3.6 too; what is not etcd's may mean anything."""
    found = refusal(502, body.encode())

    assert words in found.error
    assert (transient, surely_not_done) == (found.transient, found.surely_not_done)


def test_reasons_become_errors():
    """Forgotten history is one of its own; too large a transaction comes with the cure."""
    compacted = refusal(400, b'{"error":"mvcc: required revision has been compacted","code":11}')
    too_many = refusal(400, b'{"error":"too many operations in txn request","code":3}')

    assert isinstance(compacted.exception(), Compacted)
    assert isinstance(too_many.exception(), Refused)
    assert "--max-txn-ops" in str(too_many.exception())


def test_a_watch_is_asked_for_as_etcd_wants_it():
    """From a revision on, and in parts, of all that starts with the prefix."""
    wanted = json.loads(watch_request("/a/", 5))["create_request"]

    assert ("L2Ev", "L2Ew", 5) == (wanted["key"], wanted["range_end"], wanted["start_revision"])
    assert wanted["fragment"]


def test_only_events_are_told():
    """All that have come, by revision; that the watch is in place is no news."""
    state = WatchState()

    assert [] == state.take([line(created=True, header={"revision": "9"})])
    assert [("a", 12), ("b", 14)] == keys(
        state.take([line(at=[(b"a", 12)]), line(at=[(b"b", 14)])])
    )


def test_a_divided_answer_is_told_as_a_whole():
    """Its parts wait for the last one."""
    state = WatchState()

    assert [] == state.take([line(fragment=True, at=[(b"a", 4)])])
    assert [("a", 4), ("b", 4)] == keys(state.take([line(at=[(b"b", 4)])]))


def test_deletions_have_no_value():
    """An empty value is one."""
    state = WatchState()
    put = b'{"result":{"watch_id":"1","events":[{"kv":{"key":"YQ==","mod_revision":"2"}}]}}'
    delete = put.replace(b'{"kv"', b'{"type":"DELETE","kv"')

    assert [b"", None] == [event.value for event in state.take([put, delete])]


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (
            '{"result":{"watch_id":"1","canceled":true,"compact_revision":"5"}}',
            Compacted,
            "revision 5",
        ),
        (
            '{"result":{"watch_id":"1","canceled":true,"cancel_reason":"no leader"}}',
            StoreError,
            "no leader",
        ),
        ('{"error":{"grpc_code":14,"message":"transport is closing"}}', StoreError, "closing"),
        ("{}", StoreError, "empty"),
        ("<html>", StoreError, "no watch answer"),
    ],
)
def test_a_watch_ends_with_a_reason(text, kind, words):
    """History that is gone, a leader that is gone, a connection that is gone, nonsense."""
    with pytest.raises(kind, match=words):
        WatchState().take([text.encode()])
