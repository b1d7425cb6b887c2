"""Who may connect to the join port now: so many at once, and nobody who keeps failing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Network

from seaway.model.network import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds for strangers.

    Attributes:
        total: Connections at once.
        per_source: Of them from one source, so that one cannot keep all others out.
        handshake: Seconds for TLS.
        request: Seconds for the question.
        work: Seconds for finding the answer.
        attempts: Failures in a row before a source has to pause.
        pause: Seconds of the first pause; each failure after it doubles it.
        longest: Seconds a pause has at most.
        remembered: Sources whose failures are known at once.
    """

    total: int = 64
    per_source: int = 16
    handshake: float = 5.0
    request: float = 10.0
    work: float = 30.0
    attempts: int = 5
    pause: float = 2.0
    longest: float = 60.0
    remembered: int = 4096


class Doorkeeper:
    """Counts connections and failures by source: an IPv4 address, or an IPv6 /64.

    Args:
        clock: Seconds, never going back.
    """

    def __init__(self, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._limits = limits
        self._clock = clock
        self._open: Counter[str] = Counter()
        self._failures: dict[str, tuple[int, float]] = {}  # in a row, and when it may come again

    def enter(self, peer: Address) -> bool:
        """Take *peer* in, unless there are too many or it has to pause."""
        source = _source(peer)
        full = self._open.total() >= self._limits.total
        if full or self._open[source] >= self._limits.per_source or self._pauses(source):
            return False
        self._open[source] += 1
        return True

    def leave(self, peer: Address) -> None:
        """Note that a connection which entered has ended."""
        source = _source(peer)
        self._open[source] -= 1
        if not self._open[source]:
            del self._open[source]

    def failed(self, peer: Address) -> None:
        """Note a wrong secret, a broken rule or a handshake that was none."""
        source = _source(peer)
        count = self._failures.pop(source, (0, 0.0))[0] + 1
        over = count - self._limits.attempts
        pause = min(self._limits.pause * 2.0 ** min(over, 30), self._limits.longest)
        self._failures[source] = (count, self._clock() + (pause if over >= 0 else 0.0))
        if len(self._failures) > self._limits.remembered:
            del self._failures[next(iter(self._failures))]  # who failed longest ago

    def succeeded(self, peer: Address) -> None:
        """Forget the failures of a source that has shown it belongs here."""
        self._failures.pop(_source(peer), None)

    def _pauses(self, source: str) -> bool:
        return self._failures.get(source, (0, 0.0))[1] > self._clock()


def _source(peer: Address) -> str:
    """One host can have a whole /64 of IPv6 addresses to call from."""
    if peer.version == 6:
        return str(IPv6Network((int(peer), 64), strict=False))
    return str(peer)
