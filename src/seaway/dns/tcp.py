"""Conversations over TCP: takes messages apart by their length prefix and sends answers back.

Knows nothing of what the messages say.

Source: RFC 1035 section 4.2.2, RFC 7766.
"""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

MESSAGE_MAX = 4096
"""Bytes of a question; a connection that announces more is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpLimits:
    """Connections at a time, and seconds a connection may be silent or refuse to read."""

    total: int = 256
    per_owner: int = 32
    idle: float = 10.0


class Conversations:
    """All open connections.

    Args:
        reply: Answers one message from one source; None ends the connection.
        limits: Connections above them are closed at once.
    """

    def __init__(
        self, reply: Callable[[bytes, str], Awaitable[bytes | None]], limits: TcpLimits
    ) -> None:
        self._reply = reply
        self._limits = limits
        self._open: set[socket.socket] = set()
        self._per_owner: Counter[str] = Counter()

    def admit(self, group: asyncio.TaskGroup, conn: socket.socket, source: str, owner: str) -> None:
        """Serve *conn* as a task of *group*, and close it in the end.

        Args:
            source: Whom its questions are answered as.
            owner: Whose connections are counted together, from whatever address they come.
        """
        full = len(self._open) >= self._limits.total
        if full or self._per_owner[owner] >= self._limits.per_owner:
            conn.close()
            return
        conn.setblocking(False)
        self._open.add(conn)
        self._per_owner[owner] += 1
        group.create_task(self._converse(conn, source, owner))

    def close(self) -> None:
        """Close what is still open."""
        for conn in self._open:
            conn.close()

    async def _converse(self, conn: socket.socket, source: str, owner: str) -> None:
        """Answer questions in order until the other side ends, stalls or breaks the rules."""
        try:
            await self._exchange(conn, source)
        except (OSError, TimeoutError):
            return
        finally:
            conn.close()
            self._open.discard(conn)
            self._per_owner[owner] -= 1
            if not self._per_owner[owner]:
                del self._per_owner[owner]

    async def _exchange(self, conn: socket.socket, source: str) -> None:
        loop = asyncio.get_running_loop()
        rest = b""
        while True:
            async with asyncio.timeout(self._limits.idle):
                message, rest = await _read_message(conn, rest)
            reply = await self._reply(message, source) if message is not None else None
            if reply is None:
                return
            async with asyncio.timeout(self._limits.idle):
                await loop.sock_sendall(conn, len(reply).to_bytes(2, "big") + reply)


async def _read_message(conn: socket.socket, buffer: bytes) -> tuple[bytes | None, bytes]:
    """Read up to the end of one message.

    Returns:
        The message, and what was read beyond it.  The message is None when the other side
        has closed, or announced more than MESSAGE_MAX bytes.
    """
    loop = asyncio.get_running_loop()
    while True:
        size = int.from_bytes(buffer[:2], "big")
        if len(buffer) >= 2 and size > MESSAGE_MAX:
            return None, b""
        if len(buffer) >= 2 and len(buffer) >= size + 2:
            return buffer[2 : size + 2], buffer[size + 2 :]
        more = await loop.sock_recv(conn, MESSAGE_MAX)
        if not more:
            return None, b""
        buffer += more
