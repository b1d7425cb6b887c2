"""Making one cluster of a lab's hosts, with stand-ins for their agents."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from socketserver import UnixStreamServer
from types import SimpleNamespace

import pytest

from seaway.errors import AgentUnreachable, StoreError
from seaway.lab import cluster
from seaway.lab.topology import Lab

LAB = Lab(name="nosuch", hosts=3)


class Town:
    """Agents that remember who is in the cluster; a joiner's store is healthy one look later."""

    def __init__(self, *members):
        self.members = list(members)
        self.changes = []
        self.looks = 0

    def ask(self, host, method, path, body=None):
        """Stand in for cluster.ask."""
        if method != "GET":
            self.changes.append((host.name, method, path, body))
        return getattr(self, f"_{method.lower()}_{path.split('/')[2]}")(host, path)

    def _get_cluster(self, host, path):
        if path.endswith("/token"):
            return {"token": "SWY1-t", "join": ""}
        self.looks += 1
        healthy = {"healthy": self.looks > 6, "learner": False}
        return {
            "cluster": "c" if host.name in self.members else "",
            "ports": {"join": 7900},
            "hosts": {"alive": len(self.members), "total": len(self.members)},
            "stores": [healthy] * 3,
        }

    def _post_cluster(self, host, path):
        self.members.append(host.name)
        return {}

    def _delete_nodes(self, host, path):
        raise StoreError("no such node")


def form(town, lab=LAB):
    """Make the cluster; return what was reported."""
    lines = []
    cluster.form(lab, lines.append, town.ask)
    return lines


def joining(seed=1):
    """What a host sends in order to join."""
    return {"token": "SWY1-t", "address": f"192.0.2.{seed}", "port": 7900, "advertise": []}


def test_the_first_host_makes_it_and_the_others_join():
    """In the order of their names, and not before all is well is it done."""
    town = Town()

    assert ["host1 makes a cluster", "host2 joins", "host3 joins"] == form(town)
    assert [
        ("host1", "POST", "/v1/cluster", {}),
        ("host2", "POST", "/v1/cluster/join", joining()),
        ("host3", "POST", "/v1/cluster/join", joining()),
    ] == town.changes
    assert town.looks > 6


def test_a_cluster_that_is_there_stays():
    """Asking again changes nothing."""
    town = Town("host1", "host2", "host3")

    assert [] == form(town)
    assert [] == town.changes


def test_new_hosts_join_the_cluster_there_is():
    """Wherever its first member is."""
    town = Town("host2")

    form(town)
    assert [
        ("host1", "POST", "/v1/cluster/join", joining(2)),
        ("host3", "POST", "/v1/cluster/join", joining(2)),
    ] == town.changes


@pytest.mark.parametrize(
    ("alive", "words"), [(3, "1 of 3 stores healthy"), (2, "2 of 3 hosts alive")]
)
def test_a_cluster_that_does_not_get_ready(monkeypatch, alive, words):
    """Is told with what it lacks, after a while."""
    monkeypatch.setattr(cluster, "COMPLETE_SECONDS", 0)
    found = {
        "hosts": {"alive": alive},
        "stores": [{"healthy": True, "learner": False}, {"healthy": True, "learner": True}],
    }
    town = Town()

    def ask(host, method, path, body=None):
        return town.ask(host, method, path, body) | found

    with pytest.raises(StoreError, match=words):
        cluster.form(LAB, [].append, ask)


def test_hosts_that_will_not_come_back_are_forgotten():
    """By force; that one is not known is fine."""
    town = Town("host1")

    cluster.forget(LAB, [LAB.host("host2"), LAB.host("host3")], town.ask)
    assert [
        ("host1", "DELETE", "/v1/nodes/host2?force=true", None),
        ("host1", "DELETE", "/v1/nodes/host3?force=true", None),
    ] == town.changes


class _Handler(BaseHTTPRequestHandler):
    """Says what the server was told to, and what it was asked."""

    def address_string(self):
        """A unix socket's peer has no address."""
        return ""

    def log_message(self, *_args):
        """Nobody reads it."""

    def _answer(self):
        size = int(self.headers.get("Content-Length") or 0)
        self.server.asked = (self.command, self.path, self.rfile.read(size))
        status, body = self.server.reply
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _answer


@contextmanager
def answering(path, status, body):
    """An agent that has one answer."""
    with UnixStreamServer(str(path), _Handler) as server:
        server.reply = (status, body)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def host(tmp_path):
    """A host that is only a socket's path."""
    return SimpleNamespace(name="host1", socket=tmp_path / "s", start_command="seaway lab start")


def test_asking_an_agent(host):
    """JSON goes there and comes back; an empty answer is none."""
    with answering(host.socket, 200, b'{"cluster": "c"}') as server:
        assert {"cluster": "c"} == cluster.ask(host, "POST", "/v1/cluster", {"port": 1})
        assert ("POST", "/v1/cluster", b'{"port": 1}') == server.asked
        server.reply = (200, b"")
        assert cluster.ask(host, "GET", "/v1/cluster") is None


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": "Conflict", "message": "there is one"}', "there is one"),
        (b"no", "no"),
        (b"", "nothing"),
    ],
)
def test_an_agent_that_refuses(host, body, words):
    """The error has its words."""
    with (
        answering(host.socket, 409, body),
        pytest.raises(StoreError, match=f"host1 refuses .*{words}"),
    ):
        cluster.ask(host, "GET", "/v1/cluster")


def test_an_agent_that_is_not_there(host):
    """The error has the cure."""
    with pytest.raises(AgentUnreachable, match="seaway lab start"):
        cluster.ask(host, "GET", "/v1/cluster")


def test_an_agent_that_says_something_odd(host):
    """Is no agent."""
    with answering(host.socket, 200, b"<html>"), pytest.raises(AgentUnreachable):
        cluster.ask(host, "GET", "/v1/cluster")
