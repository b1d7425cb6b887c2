"""What does a network cost when a container is started: ``run -d`` against one without a network.

All start the same image from the same store, with the same Podman flags.
"""

from __future__ import annotations

from collections.abc import Callable

from bench.engines.podman import IMAGE, NETWORK
from bench.programs import milliseconds
from bench.samples import Probe
from bench.stage import Stage

RUN = "run -d"
BARE, SEAWAY_PORT = "podman, no network", "seaway, one port"
PODMAN_BARE, PODMAN_PORT = "podman (netavark), no network", "podman (netavark), one port"
_COMMAND = (IMAGE, "sleep", "100000")


def measure(stage: Stage) -> None:
    """Measure starts in rounds; removals are not measured."""
    seaway, podman = stage.seaway, stage.podman

    def timed(start: Callable[[], str], remove: Callable[[str], object]) -> float:
        made = ""

        def work() -> None:
            nonlocal made
            made = start()

        took = milliseconds(work)
        remove(made.strip())
        return took

    def bare() -> float:
        return timed(
            lambda: seaway.podman("run", "-d", "--network", "none", *_COMMAND),
            lambda made: seaway.podman("rm", "-f", "-t", "0", made),
        )

    def ours(*flags: str) -> float:
        return timed(
            lambda: seaway.command("run", "-d", *flags, *_COMMAND),
            lambda made: seaway.command("rm", "-f", made),
        )

    def theirs(*flags: str) -> float:
        return timed(lambda: podman.start("--network", NETWORK, *flags), podman.remove)

    def podmans_none() -> float:
        return timed(lambda: podman.start("--network", "none"), podman.remove)

    stage.take(
        [
            Probe(RUN, BARE, "ms", bare),
            Probe(RUN, "seaway", "ms", ours),
            Probe(RUN, SEAWAY_PORT, "ms", lambda: ours("-p", "18080:80")),
            Probe(RUN, PODMAN_PORT, "ms", lambda: theirs("-p", "18080:80")),
            Probe(RUN, PODMAN_BARE, "ms", podmans_none),
        ]
    )
