"""Measure: ``python -m bench [QUESTION...]``; with no question, everything."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

from bench.programs import Failed
from bench.questions import (
    attach,
    cli,
    dns,
    memory,
    overlay,
    overlay_attach,
    overlay_names,
    path,
    ports,
    run,
    scale,
)
from bench.quiet import Patience
from bench.report import Run
from bench.samples import say
from bench.stage import QUICK, Plan, Sizes, Stage, built
from seaway.errors import SeawayError

QUESTIONS: dict[str, Callable[[Stage], None]] = {
    "memory": memory.measure,  # first, while the agent is fresh
    "attach": attach.measure,
    "run": run.measure,
    "cli": cli.measure,
    "dns": dns.measure,
    "path": path.measure,
    "ports": ports.measure,
    "overlay": overlay.measure,
    "overlay-attach": overlay_attach.measure,
    "overlay-names": overlay_names.measure,
    "scale": scale.measure,
}


def main() -> int:
    """Return 0 when everything asked was measured, whatever the figures are."""
    options = _options()
    if os.geteuid() != 0:
        print("bench: network namespaces need root: use sudo", file=sys.stderr)
        return 1
    subprocess.run([str(Path(__file__).with_name("setup.sh"))], check=True)
    signal.signal(signal.SIGTERM, _end)
    outcome = Run(command=shlex.join(["python", "-m", "bench", *sys.argv[1:]]), began=time.time())
    try:
        complete = _ask(outcome, options)
    finally:
        if outcome.samples:
            _print(outcome, quick=options.quick)
    if options.write:
        options.write.write_text(outcome.document())
    return 0 if complete else 1


def _ask(outcome: Run, options: argparse.Namespace) -> bool:
    """Ask one question after the other; one that cannot be measured does not stop the rest."""
    patience = Patience(longest=options.patience, tries=1 if options.quick else Patience().tries)
    plan = Plan(sizes=_sizes(options), patience=patience, samples=outcome.samples)
    complete = True
    with built(plan) as stage:
        for question in options.question or QUESTIONS:
            say(f"-- {question}")
            try:
                QUESTIONS[question](stage)
            except (Failed, SeawayError, OSError) as err:
                say(f"{question} cannot be measured: {err}")
                complete = False
    return complete


def _print(outcome: Run, *, quick: bool) -> None:
    """Print what there is, also of a run that was ended early."""
    say(f"written to {outcome.save()}")
    print(outcome.table(), outcome.details(), sep="\n\n")
    if quick:
        say("these sizes are tiny: they show that it works, not what is reached")


def _end(number: int, _frame: object) -> NoReturn:
    """Leave as after an exception, so that nothing is left behind; once is enough."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(128 + number)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "question",
        nargs="*",
        choices=[[], *QUESTIONS],
        metavar="QUESTION",
        help=f"{', '.join(QUESTIONS)}; default: all",
    )
    parser.add_argument("--rounds", type=int, help=f"default {Sizes().rounds}")
    parser.add_argument("--seconds", type=float, help="of traffic a sample, default 1")
    parser.add_argument(
        "--slow", action="store_true", help="also what takes peers a minute and more"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes, only to see it work")
    parser.add_argument(
        "--patience", type=float, default=30, help="seconds to wait for idle CPUs, default 30"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the report to this file")
    options = parser.parse_args()
    if options.quick and options.write:
        parser.error("--quick measures too little to be written down: drop one of the two")
    return options


def _sizes(options: argparse.Namespace) -> Sizes:
    sizes = replace(QUICK if options.quick else Sizes(), slow=options.slow or not options.question)
    given = {k: v for k in ("rounds", "seconds") if (v := getattr(options, k)) is not None}
    return replace(sizes, **given)


try:
    sys.exit(main())
except SeawayError as error:
    sys.exit(f"bench: {error}")
