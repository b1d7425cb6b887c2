"""What is measured, and how: rounds that take every probe once, in turns.

Only comparisons within a round carry over to another machine, so those that are
compared are measured within seconds of each other, in an order that rotates.
"""

from __future__ import annotations

import math
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.programs import Failed
from bench.quiet import Patience, disturbance, wait
from seaway.errors import SeawayError


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement.

    Attributes:
        what: What was measured, e.g. "same host, round trips".
        who: Whose it is, e.g. "seaway", "docker", "bare veth".
        unit: Of *value*: "/s", "ms", "µs", "MB".
        round: Samples of one round are compared with each other.
        foreign: CPUs that others used meanwhile, on average.
        noisy: Others disturbed it at every try.
    """

    what: str
    who: str
    unit: str
    round: int
    value: float
    foreign: float = 0.0
    noisy: bool = False


@dataclass(frozen=True, slots=True)
class Probe:
    """Something that can be measured again and again; *take* cleans up after itself."""

    what: str
    who: str
    unit: str
    take: Callable[[], float]


def take_rounds(
    probes: Sequence[Probe], rounds: int, patience: Patience, spaces: Sequence[Path]
) -> Iterator[Sample]:
    """Take every probe once a round, in an order that rotates from round to round.

    A probe that fails is reported and left out of that round.

    Args:
        spaces: Network namespaces whose processes are the benchmark's own.
    """
    for number in range(rounds):
        first = number % len(probes)
        for probe in (*probes[first:], *probes[:first]):
            try:
                sample = _take(probe, number, patience, spaces)
            except (Failed, SeawayError, OSError) as err:
                say(f"{probe.what}: {probe.who} failed: {err}")
                continue
            mark = "  (disturbed)" if sample.noisy else ""
            say(
                f"{number + 1}/{rounds} {sample.what}: {sample.who} {sample.value:.6g} "
                f"{sample.unit}{mark}"
            )
            yield sample


def _take(probe: Probe, number: int, patience: Patience, spaces: Sequence[Path]) -> Sample:
    values: list[float] = []
    foreign = 0.0
    for _ in range(patience.tries):
        wait(patience)
        foreign = disturbance(spaces, lambda: values.append(probe.take()))
        if foreign <= patience.foreign:
            break
    return Sample(
        what=probe.what,
        who=probe.who,
        unit=probe.unit,
        round=number,
        value=values[-1],
        foreign=round(foreign, 3),
        noisy=foreign > patience.foreign,
    )


# -- what comes of them ------------------------------------------------------------------------


def of(samples: Iterable[Sample], what: str, who: str) -> list[Sample]:
    """Pick the samples of one probe; undisturbed ones if there are any."""
    found = [s for s in samples if s.what == what and s.who == who]
    return [s for s in found if not s.noisy] or found


def median(samples: Sequence[Sample]) -> float | None:
    """Return the median value, None if there are no samples."""
    return statistics.median(s.value for s in samples) if samples else None


def percentile99(samples: Sequence[Sample]) -> float | None:
    """Return what 99 in 100 values do not exceed, None if there are no samples."""
    values = sorted(s.value for s in samples)
    return values[math.ceil(0.99 * len(values)) - 1] if values else None


def paired(
    samples: Sequence[Sample], base: Sequence[Sample], compare: Callable[[float, float], float]
) -> float | None:
    """Compare with *base* round by round; return the median of that, None without a pair."""
    bases = {s.round: s.value for s in base}
    found = [compare(s.value, bases[s.round]) for s in samples if s.round in bases]
    return statistics.median(found) if found else None


def say(line: str) -> None:
    """Tell whoever watches how far we are; results go to standard output."""
    print(line, file=sys.stderr, flush=True)
