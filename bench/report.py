"""A run, written down: as JSON for whoever wants all of it, as Markdown for readers."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench import machine
from bench.goals import GOALS, Figure, Goal
from bench.samples import Sample, of

RESULTS = Path(__file__).with_name("results")


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of the benchmarks.

    Attributes:
        command: What was typed.
        began: Seconds since the epoch.
        samples: Everything that was measured, in that order.
    """

    command: str
    began: float
    samples: list[Sample] = field(default_factory=list)

    def save(self) -> Path:
        """Write everything as JSON; return where."""
        RESULTS.mkdir(exist_ok=True)
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime(self.began))
        target = RESULTS / f"{stamp}.json"
        record = {"command": self.command, "began": self.began, "machine": machine.describe()}
        record["samples"] = [asdict(s) for s in self.samples]
        target.write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        return target

    def table(self) -> str:
        """Render the figures of the goals that were measured."""
        lines = [
            "| what | Seaway | reach | reached | peers in the same run |",
            "|---|---|---|---|---|",
        ]
        lines += [_row(g, self.samples) for g in GOALS if g.figure.value(self.samples) is not None]
        return "\n".join(lines)

    def missed(self) -> str:
        """Say what the missed figures are made of."""
        found = [g for g in GOALS if g.reached(self.samples) is False]
        lines = [f"- {g.text}: {g.cost or 'not looked into yet'}." for g in found]
        return "\n".join(["Missed:", "", *lines]) if lines else "All of them are reached."

    def details(self) -> str:
        """Render every probe: how often it was taken, and what came of it."""
        lines = ["| what | who | median | least | most | samples (disturbed) |"]
        lines += ["|---|---|---|---|---|---|"]
        probes = dict.fromkeys((s.what, s.who) for s in self.samples)
        lines += [_detail(self.samples, what, who) for what, who in sorted(probes)]
        return "\n".join(lines)

    def document(self) -> str:
        """Render docs/benchmarks.md."""
        day = time.strftime("%-d %B %Y", time.gmtime(self.began))
        facts = "\n".join(f"- {line}" for line in machine.describe())
        return _DOCUMENT.format(
            command=self.command,
            day=day,
            machine=facts,
            table=self.table(),
            missed=self.missed(),
            details=self.details(),
        )


def _row(goal: Goal, samples: Sequence[Sample]) -> str:
    value = goal.figure.value(samples)
    assert value is not None, "only what was measured has a row"
    cells = [
        goal.text,
        f"**{_number(value, goal)}**",
        _reach(goal),
        "yes" if goal.reached(samples) else "**no**",
        "; ".join(_peers(goal.peers, goal, samples)) or "-",
    ]
    return f"| {' | '.join(cells)} |"


def _peers(figures: Iterable[Figure], goal: Goal, samples: Sequence[Sample]) -> list[str]:
    found = [(f.label or f.who, f.value(samples)) for f in figures]
    return [f"{who} {_number(value, goal)}" for who, value in found if value is not None]


def _reach(goal: Goal) -> str:
    least = goal.at_least is not None
    value = goal.at_least if least else goal.at_most
    ahead = f", ahead of {goal.ahead_of}" if goal.ahead_of else ""
    return f"{'≥' if least else '≤'} {value:,g} {goal.unit}".rstrip() + ahead


def _number(value: float, goal: Goal) -> str:
    digits = 2 if not goal.unit else 0 if abs(value) >= 100 else 1
    return f"{value:,.{digits}f} {goal.unit}".rstrip()


def _detail(samples: Sequence[Sample], what: str, who: str) -> str:
    taken = of(samples, what, who)
    values = [s.value for s in taken]
    disturbed = sum(s.noisy for s in samples if (s.what, s.who) == (what, who))
    cells = [f"{what} ({taken[0].unit})", who]
    cells += [_plain(v) for v in (statistics.median(values), min(values), max(values))]
    cells.append(f"{len(values)} ({disturbed})")
    return f"| {' | '.join(cells)} |"


def _plain(value: float) -> str:
    return f"{value:,.{0 if abs(value) >= 100 else 2}f}"


_DOCUMENT = """\
# Benchmarks

What Seaway reaches, with its peers measured in the same run. Written by `{command}` on {day}.
`make bench` measures again in about twenty minutes on a quiet machine and keeps everything in
bench/results as JSON; `make bench ARGS="--write docs/benchmarks.md"` writes this page anew.

{machine}

## Figures

{table}

A ratio is the median over all rounds of one ratio a round, any other figure the median of all
samples.

{missed}

## How it is measured

- Everything happens in a lab (`seaway lab`): host1 with Seaway's agent, host2 with its own dockerd,
  host3 with Podman and netavark, host4 with the CNI plugins, and the client `outside`, all on one
  virtual wire. Nothing of it is left afterwards, and the machine's own network is never touched.
- In a round, everyone is measured once, in an order that rotates from round to round. Before each
  sample we wait until the CPUs are idle; a sample during which processes that are not the
  benchmark's used more than 0.08 CPU is taken again, up to four times. Where all four were
  disturbed the last one counts, unless other rounds have undisturbed ones.
- Round trips: one byte there and back on one connection. Connections: connect, one byte each way,
  close. Client and server are pinned to the same CPU, so that what is measured is the path and not
  how fast one CPU wakes another. Congestion control is reno for everyone, set on each socket.
- "A process on the host" listens on the same host, in the same run, without a container.
- Attach is one call of the API (or one run of netavark or the plugins) for a namespace that exists;
  Docker has no such thing, so `network connect` of a running container stands for it.
- `run -d` is compared round by round with the same Podman, image and flags and `--network none`.
- Between hosts: a second lab with three pairs of hosts, each pair on a cable of its own (a veth
  pair): one with what is built by hand and no packet filter at all, one with Docker's swarm, one
  with Seaway. "Host to host" is the same load between processes on the two hosts themselves, with
  their engine's connection tracking; ratios to the bare hosts stand beside it. Attaching and names
  are measured on three more hosts, whose stores (etcd) have to agree.
- One stream is as many bytes as go through one connection, both ends again on one CPU, but for
  wireguard-go, which takes whatever CPU is free.
- A new container's name: from asking the API on one host until a container on the third host gets
  an answer from DNS and an echo from that address. Docker's time holds the start of a process.
- The large cluster: every host but one, and all they hold, exist only as records in a real etcd.
  The one real agent has a container on each of four networks (two encrypted, one by VXLAN, one
  direct) with 25,000 endpoints each, so it has to know everything. A change is one transaction of
  etcd; its time counts from etcd's own answer.
- Peers are the distribution's versions. What a peer cannot do is left out.

## Everything that was measured

{details}
"""
