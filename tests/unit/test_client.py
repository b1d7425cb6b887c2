"""The API client against a socket that answers what each test tells it to."""

import json
import os
import socket
import threading

import pytest

from seaway import errors
from seaway.cli.client import DEFAULT_SOCKET, AgentFailed, Client, segment


class Agent:
    """Answers one connection with the given bytes and keeps what was asked."""

    def __init__(self, path):
        self.path = str(path)
        self.asked = b""
        self.hold = threading.Event()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen()
        self._thread = None

    def answers(self, *pieces, then_hold=False):
        self._thread = threading.Thread(target=self._serve, args=(pieces, then_hold))
        self._thread.start()
        return Client(self.path, timeout=10)

    def _serve(self, pieces, then_hold):
        connection, _ = self._listener.accept()
        with connection, connection.makefile("rb") as file:
            while line := file.readline().strip():
                self.asked += line + b"\n"
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            self.asked += file.read(length)
            for piece in pieces:
                connection.sendall(piece)
            if then_hold:
                self.hold.wait(10)

    def close(self):
        self.hold.set()
        if self._thread:
            self._thread.join(10)
            assert not self._thread.is_alive()
        self._listener.close()


@pytest.fixture
def agent(tmp_path):
    made = Agent(tmp_path / "a.sock")
    yield made
    made.close()


def plain(status, document):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n"


def chunk(data):
    return b"%x;ext=1\r\n%s\r\n" % (len(data), data)


def test_a_request_is_json_both_ways(agent):
    """The body goes out as JSON with its length, the reply comes back as a value."""
    client = agent.answers(plain("201 Created", {"Id": "x"}))

    assert {"Id": "x"} == client.request("POST", "/v1/networks", {"name": "bäckend"})
    lines = agent.asked.split(b"\n")
    assert b"POST /v1/networks HTTP/1.1" == lines[0]
    assert {"name": "bäckend"} == json.loads(lines[-1])


def test_no_body_and_no_reply(agent):
    """DELETE sends nothing, and an empty reply is None."""
    client = agent.answers(b"HTTP/1.1 204 No Content\r\n\r\n")

    assert None is client.request("DELETE", "/v1/networks/x")
    assert b"Content-Length: 0" in agent.asked


def test_a_chunked_reply_is_put_together(agent):
    """Pieces, their extensions and trailers are taken apart as HTTP says."""
    client = agent.answers(
        CHUNKED, chunk(b'{"a":'), chunk(b" [1,"), chunk(b"2]}"), b"0\r\nX: y\r\n\r\n"
    )

    assert {"a": [1, 2]} == client.request("GET", "/")


def test_a_reply_without_length_ends_with_the_connection(agent):
    """Neither length nor chunks: everything up to the end counts."""
    assert [1] == agent.answers(b"HTTP/1.0 200 OK\r\n\r\n[1]").request("GET", "/")


def test_a_stream_yields_each_line_as_it_comes(agent):
    """Lines arrive while the agent is still talking, however they are cut into chunks."""
    client = agent.answers(
        CHUNKED, chunk(b'{"n": 1}\n{"n"'), chunk(b": 2}\n"), chunk(b"\n"), then_hold=True
    )
    events = client.stream("GET", "/v1/events")

    assert [{"n": 1}, {"n": 2}] == [next(events), next(events)]
    events.close()


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_stream_ends_when_the_agent_says_so(agent, end):
    """The last chunk ends it; a last line needs no newline."""
    client = agent.answers(CHUNKED, chunk(b"1\n2" + end), b"0\r\n\r\n")

    assert [1, 2] == list(client.stream("GET", "/"))


def test_a_stream_that_breaks_off_is_an_error(agent):
    """An agent that dies in the middle is not mistaken for the end."""
    events = agent.answers(CHUNKED, chunk(b"1\n")).stream("GET", "/")

    assert 1 == next(events)
    with pytest.raises(errors.AgentUnreachable, match="lost the agent"):
        next(events)


@pytest.mark.parametrize(
    "name",
    [
        "InvalidSpec",
        "Conflict",
        "NotFound",
        "Exhausted",
        "EngineError",
        "StoreError",
        "Unsupported",
    ],
)
def test_an_error_comes_back_as_its_class(agent, name):
    """The class named in the reply is raised here, with the agent's message."""
    client = agent.answers(plain("409 Conflict", {"error": name, "message": "port 80 is taken"}))

    with pytest.raises(errors.SeawayError) as caught:
        client.request("POST", "/")
    assert (getattr(errors, name), "port 80 is taken") == (type(caught.value), str(caught.value))


@pytest.mark.parametrize("name", ["KernelError", "KernelBusy"])
def test_a_kernel_error_carries_its_message_only(agent, name):
    """errno and target did not travel: they are empty, and the message is not built twice."""
    said = "create link swv-x: File exists"
    client = agent.answers(plain("500 Oops", {"error": name, "message": said}))

    with pytest.raises(errors.KernelError) as caught:
        client.request("POST", "/")
    assert name == type(caught.value).__name__
    assert said == str(caught.value)
    assert ("", "", 0) == (caught.value.operation, caught.value.target, caught.value.errno)


def test_a_stream_can_be_refused(agent):
    """A stream raises the agent's error at its first value."""
    client = agent.answers(plain("404 Not Found", {"error": "NotFound", "message": "no x"}))

    with pytest.raises(errors.NotFound, match="no x"):
        next(client.stream("GET", "/"))


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"error": "FutureError", "message": "new"}, "new"),
        ({"error": "from_errno", "message": "odd"}, "odd"),
        ({"error": 7, "message": "odd"}, "odd"),
        ({}, "the agent failed with status 500: look at 'journalctl -u seaway'"),
        ([], "the agent failed with status 500"),
        (b"Internal Server Error", "the agent failed with status 500"),
        (b"", "the agent failed with status 500"),
    ],
)
def test_a_failure_without_a_known_class(agent, document, message):
    """A bug in the agent, or an error newer than this client, is still one clear line."""
    client = agent.answers(plain("500 Internal Server Error", document))

    with pytest.raises(AgentFailed) as caught:
        client.request("GET", "/")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (b"", "lost the agent on .*broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1]", "broke off"),
        (CHUNKED + b"9\r\n[1]", "broke off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "is not a Seaway agent: check"),
        (b"220 mail ready\r\n", "is not a Seaway agent"),
        (b"HTTP/1.1 fine OK\r\n\r\n", "is not a Seaway agent"),
        (b"x" * 70000, "is not a Seaway agent"),
        (CHUNKED + b"zz\r\n", "is not a Seaway agent"),
        (plain("200 OK", b"<html>"), "is not a Seaway agent"),
        (plain("200 OK", b"\xff"), "is not a Seaway agent"),
    ],
)
def test_a_strange_reply_is_one_clear_line(agent, reply, message):
    """Whatever answers, the user hears what is wrong with the socket."""
    with pytest.raises(errors.AgentUnreachable, match=message):
        agent.answers(reply).request("GET", "/")


def test_an_agent_that_does_not_answer_in_time(agent):
    """Silence has an end."""
    agent.answers(then_hold=True)

    with pytest.raises(errors.AgentUnreachable, match=r"took more than 0\.05 seconds"):
        Client(agent.path, timeout=0.05).request("GET", "/")


def test_no_socket(tmp_path):
    """Without an agent the message says how to start one."""
    path = str(tmp_path / "none.sock")

    with pytest.raises(errors.AgentUnreachable) as caught:
        Client(path).request("GET", "/")
    assert str(caught.value) == (
        f"the agent does not answer on {path}: "
        "start it with 'systemctl start seaway' or 'seaway agent'"
    )


def test_a_socket_without_an_owner(tmp_path):
    """A socket file left by a killed agent is the same as none."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left.sock"))

    with pytest.raises(errors.AgentUnreachable, match="start it with 'systemctl start seaway'"):
        next(Client(str(tmp_path / "left.sock")).stream("GET", "/"))


def test_no_permission(monkeypatch):
    """Without permission the message names the group to join."""

    def denied(*_):
        raise PermissionError(13, os.strerror(13))

    refusing = type("Refusing", (), {"connect": denied, "close": lambda _: None})
    monkeypatch.setattr("seaway.cli.client._socket.socket", lambda *_: refusing())

    with pytest.raises(errors.AgentUnreachable, match="join the group seaway"):
        Client("/run/x.sock").request("GET", "/")


def test_where_the_agent_is_looked_for(monkeypatch):
    """An argument wins over SEAWAY_SOCKET, which wins over the default."""
    monkeypatch.delenv("SEAWAY_SOCKET", raising=False)
    assert DEFAULT_SOCKET == Client().socket_path

    monkeypatch.setenv("SEAWAY_SOCKET", "/run/lab/host1.sock")
    assert "/run/lab/host1.sock" == Client().socket_path
    assert "/x.sock" == Client("/x.sock").socket_path


def test_a_path_no_socket_can_have():
    """The kernel's limit is named before anything is tried."""
    with pytest.raises(errors.InvalidSpec, match="at most 107 bytes"):
        Client("/" + "x" * 107)


def test_names_are_escaped():
    """A name with slashes, spaces or odd bytes stays one segment of the path."""
    assert "a-b_c.d~1" == segment("a-b_c.d~1")
    assert "..%2Fx%20%3Fq%0D%C3%A9%FF" == segment("../x ?q\ré\udcff")


def test_an_unescaped_path_is_a_bug(agent):
    """A space or newline in the path never reaches the wire."""
    with pytest.raises(AssertionError, match="not escaped"):
        Client(agent.path).request("GET", "/a b")
