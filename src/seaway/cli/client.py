"""The API client: one request to the agent's unix socket, one reply.

HTTP/1.1 by hand: a request and two ways to mark the end of a reply fit on a
page, while importing http.client would take longer than most commands.  The
same goes for socket and json: their C halves are enough here, and their Python
halves import re and enum, 10 of the 30 milliseconds that a command may take.
"""

from __future__ import annotations

import _socket
import os

from seaway import errors
from seaway.cli.lean_json import dumps, loads
from seaway.errors import AgentUnreachable, InvalidSpec, KernelError, SeawayError

TYPE_CHECKING = False  # a type checker takes it for True; typing itself is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

DEFAULT_SOCKET = "/run/seaway/seaway.sock"

_LOG = "look at 'journalctl -u seaway'"
_PATH_MAX = 107  # bytes in sun_path without its final zero, unix(7)
_LINE_MAX = 65536  # bytes of a status, header or chunk-size line
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


class AgentFailed(SeawayError):
    """The agent met a bug, or an error this client does not know."""


class Client:
    """Asks the agent.  Each request has its own connection, so nothing needs closing."""

    def __init__(self, socket_path: str = "", timeout: float = 60.0) -> None:
        """Remember where the agent listens.

        Args:
            socket_path: Empty means $SEAWAY_SOCKET, or else /run/seaway/seaway.sock.
            timeout: Seconds of silence after which a request has failed.

        Raises:
            InvalidSpec: The path does not fit into a socket address, unix(7).
        """
        self.socket_path = socket_path or os.environ.get("SEAWAY_SOCKET") or DEFAULT_SOCKET
        if len(os.fsencode(self.socket_path)) > _PATH_MAX:
            raise InvalidSpec(
                f"socket path {self.socket_path!r} is too long: use at most {_PATH_MAX} bytes"
            )
        self._timeout = timeout

    def request(self, method: str, path: str, body: object | None = None) -> object:
        """Return the reply's JSON, or None if the reply is empty.

        Args:
            path: With names escaped by segment(), and the query if any.
            body: Sent as JSON; None sends no body.

        Raises:
            AgentUnreachable: Nobody answers, or not as an agent does.
            SeawayError: The class the agent named, with its message.
        """
        try:
            with _Exchange(self.socket_path, self._timeout) as exchange:
                exchange.ask(method, path, body)
                document = exchange.document()
        except (OSError, ValueError) as err:
            raise self._unreachable(err) from None
        if exchange.status >= 400:
            raise _error(exchange.status, document)
        return document

    def stream(self, method: str, path: str) -> Iterator[object]:
        """Yield one JSON value a line for as long as the agent sends them.

        Silence is no failure here.  Raises what request() raises, and
        AgentUnreachable when the agent goes away in the middle.
        """
        try:
            with _Exchange(self.socket_path, self._timeout) as exchange:
                exchange.ask(method, path, None)
                if exchange.status >= 400:
                    raise _error(exchange.status, exchange.document())
                for line in exchange.lines():
                    yield loads(line)
        except (OSError, ValueError) as err:
            raise self._unreachable(err) from None

    def _unreachable(self, err: OSError | ValueError) -> AgentUnreachable:
        where = self.socket_path
        if isinstance(err, FileNotFoundError | ConnectionRefusedError):
            return AgentUnreachable(
                f"the agent does not answer on {where}: "
                "start it with 'systemctl start seaway' or 'seaway agent'"
            )
        if isinstance(err, PermissionError):
            return AgentUnreachable(
                f"no permission to talk to the agent on {where}: join the group seaway "
                "('sudo usermod -aG seaway $USER', then log in again) or use sudo"
            )
        if isinstance(err, TimeoutError):
            return AgentUnreachable(
                f"the agent on {where} took more than {self._timeout:g} seconds: {_LOG}"
            )
        if isinstance(err, OSError):
            return AgentUnreachable(f"lost the agent on {where} ({err.strerror or err}): {_LOG}")
        return AgentUnreachable(
            f"what answers on {where} is not a Seaway agent: check $SEAWAY_SOCKET"
        )


class _Exchange:
    """One connection: a question, the head of its reply, then the body.

    Raises OSError when the other side is not there or goes away, ValueError
    when what it says is not HTTP or not JSON.
    """

    def __init__(self, socket_path: str, timeout: float) -> None:
        self.status = 0
        self._headers: dict[bytes, bytes] = {}
        self._unread = b""
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            # Blocking: a socket with a timeout would not wait for its turn in
            # the agent's queue but fail with EAGAIN at once, unix(7).
            self._socket.connect(socket_path)
        except OSError:
            self._socket.close()
            raise
        self._socket.settimeout(timeout)

    def __enter__(self) -> _Exchange:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._socket.close()

    def ask(self, method: str, path: str, body: object | None) -> None:
        """Send the request and read the reply as far as its headers."""
        assert all("!" <= c <= "~" for c in path), f"{path!r} is not escaped"
        content = b"" if body is None else dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: seaway\r\nAccept: application/json\r\n"
            f"Connection: close\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + content)
        protocol, status, *_ = self._line().split(b" ")
        if not protocol.startswith(b"HTTP/1."):
            raise ValueError(protocol)
        self.status = int(status)
        while line := self._line():
            name, _, value = line.partition(b":")
            self._headers[name.lower()] = value.strip()

    def document(self) -> object:
        """Return the whole body as JSON; None if it is empty, or the plain text of a failure."""
        data = b"".join(self._pieces())
        if not data.strip():
            return None
        try:
            return loads(data)
        except ValueError:
            if self.status < 400:
                raise
            return None

    def _pieces(self) -> Iterator[bytes]:
        """Yield the body as it arrives (RFC 9112 section 6)."""
        if b"chunked" in self._headers.get(b"transfer-encoding", b"").lower():
            while size := int(self._line().partition(b";")[0], 16):
                yield self._exactly(size)
                self._line()
            while self._line():
                pass
        elif b"content-length" in self._headers:
            yield self._exactly(int(self._headers[b"content-length"]))
        else:
            while self._unread or self._fill():
                yield self._unread
                self._unread = b""

    def lines(self) -> Iterator[bytes]:
        """Yield the body's lines as they arrive, without the empty ones, however long it takes."""
        self._socket.settimeout(None)
        begun = b""
        for piece in self._pieces():
            *complete, begun = (begun + piece).split(b"\n")
            yield from (line for line in complete if line.strip())
        if begun.strip():
            yield begun

    def _line(self) -> bytes:
        while b"\n" not in self._unread:
            if len(self._unread) > _LINE_MAX:
                raise ValueError("line too long")
            if not self._fill():
                raise _cut_short()
        line, _, self._unread = self._unread.partition(b"\n")
        return line.rstrip(b"\r")

    def _exactly(self, size: int) -> bytes:
        while len(self._unread) < size:
            if not self._fill():
                raise _cut_short()
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    def _fill(self) -> bool:
        """Read what has arrived; False at the end."""
        data = self._socket.recv(_LINE_MAX)
        self._unread += data
        return bool(data)


def segment(name: str) -> str:
    """Escape *name* for one part of a path or query (RFC 3986 section 2)."""
    octets = name.encode("utf-8", "surrogateescape")
    return "".join(chr(o) if o in _UNRESERVED else f"%{o:02X}" for o in octets)


def _cut_short() -> ConnectionError:
    return ConnectionError("it broke off in the middle of its reply")


def _error(status: int, document: object) -> SeawayError:
    """Turn ``{"error": CLASS, "message": ...}`` back into an exception."""
    fields = document if isinstance(document, dict) else {}
    message = str(fields.get("message") or f"the agent failed with status {status}: {_LOG}")
    kind = getattr(errors, str(fields.get("error")), None)
    if not (isinstance(kind, type) and issubclass(kind, SeawayError)):
        return AgentFailed(message)
    error = kind.__new__(kind, message)  # past __init__: KernelError's wants what did not travel
    if isinstance(error, KernelError):
        error.operation, error.target, error.errno = "", "", 0
    return error
