"""``seaway doctor``: gather the facts, have them judged, and print that for people."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from seaway.agent.doctor import diagnose
from seaway.agent.findings import Finding, Level, as_json, worst
from seaway.cli.client import DEFAULT_SOCKET, Client
from seaway.cli.output import terminal_columns
from seaway.cli.parse import Parsed
from seaway.errors import AgentUnreachable
from seaway.kernel.facts import AgentAnswer, Facts, PathTried
from seaway.kernel.probe import FOLDERS, gather
from seaway.lab.topology import HOSTS_MAX, RUN_ROOT, Lab

_COLUMNS_MAX: Final = 100  # longer lines are hard to read
_PATIENCE: Final = 5.0  # seconds for an agent that may be ill
_PATIENCE_PATHS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """Where an agent lives: the folders it writes, and the command that starts it."""

    folders: tuple[Path, ...]
    start: str


def examine(parsed: Parsed) -> int:
    """Examine this host; the exit status is 1 if anything failed."""
    findings = diagnose(_facts())
    if parsed.flag("format").value == "json":
        print(json.dumps(as_json(findings)))
    else:
        columns = min(terminal_columns(), _COLUMNS_MAX)
        print(render(findings, columns=columns, everything=parsed.flag("all").on), end="")
    return 1 if worst(findings) is Level.FAIL else 0


def render(findings: Iterable[Finding], *, columns: int, everything: bool) -> str:
    """Write complaints, each with its cure below, and how many things are well.

    Args:
        columns: Width at which sentences are wrapped.  Cures never are, so that
            they can be copied; a long one goes on after each ``&&``.
        everything: What is well is written out, too.

    Returns:
        Lines, each with a newline.
    """
    found = tuple(findings)
    shown = [f for f in found if everything or f.level is not Level.OK]
    subjects = max((len(f.subject) for f in shown), default=0)
    blocks = "".join(_block(f, subjects, columns) for f in shown)
    return (blocks + "\n" if blocks else "") + _summary(found, everything=everything)


def _block(finding: Finding, subjects: int, columns: int) -> str:
    first = f"{finding.level.upper():4}  {finding.subject:{subjects}}  "
    below = " " * len(first)
    lines = textwrap.wrap(
        finding.what,
        max(columns, len(first) + 20),
        initial_indent=first,
        subsequent_indent=below,
        break_long_words=False,
        break_on_hyphens=False,
    )
    if finding.cure:
        cure = finding.cure.replace(" && ", f" &&\n{below}      ")
        lines.append(f"{below}cure: {cure}")
    return "\n".join(lines) + "\n"


def _summary(findings: tuple[Finding, ...], *, everything: bool) -> str:
    words = {Level.FAIL: "failure", Level.WARN: "warning", Level.OK: "thing"}
    number = {level: sum(f.level is level for f in findings) for level in words}
    counted = {
        level: f"{number[level]} {word}{'s' * (number[level] != 1)}"
        for level, word in words.items()
    }
    hint = "" if everything else " (--all shows them)"
    bad = [counted[level] for level in (Level.FAIL, Level.WARN) if number[level]]
    if not bad:
        return f"All is well: {counted[Level.OK]} looked at{hint}.\n"
    return f"{', '.join(bad)}; {counted[Level.OK]} found well{hint}.\n"


def _facts() -> Facts:
    client = Client(timeout=_PATIENCE)
    home = home_of(client.socket_path, systemd=Path("/run/systemd/system").is_dir())
    try:
        status: Any = client.request("GET", "/v1/status")
    except AgentUnreachable as err:
        facts = gather(home.folders)
        # Who may not ask knows nothing about the agent.
        answer = AgentAnswer(silence=str(err).partition(": ")[0], start=home.start)
        return replace(facts, agent=answer) if facts.privileged else facts
    folders = (Path(status["state_dir"]), *home.folders[1:])
    problems = tuple(f"{p['object']}: {p['error']}" for p in status["problems"])
    answer = AgentAnswer(
        version=status["version"],
        # What a way to a host lacks is said once, by whoever has just tried it.
        problems=tuple(p for p in problems if not p.startswith("path: ")),
        start=home.start,
        paths=_paths() if status.get("cluster") else (),
    )
    return replace(gather(folders), agent=answer)


def _paths() -> tuple[PathTried, ...]:
    """Have the agent try every way to another host: a dead one takes a few seconds."""
    found: Any = Client(timeout=_PATIENCE_PATHS).request("GET", "/v1/paths")
    return tuple(
        PathTried(
            host=path["host"],
            carrier=path["carrier"],
            size=path["size"],
            milliseconds=path["milliseconds"],
            error=path["error"],
        )
        for path in found
    )


def home_of(socket: str, *, systemd: bool) -> Home:
    """Tell from its socket where an agent lives: this machine's, a lab host's, or another."""
    path = Path(socket)
    if path.is_relative_to(RUN_ROOT) and len(parts := path.relative_to(RUN_ROOT).parts) == 3:
        machine = Lab(name=parts[0], hosts=HOSTS_MAX).host(parts[1])
        return Home(folders=(machine.state_dir, machine.run_dir), start=machine.start_command)
    if socket == DEFAULT_SOCKET:
        return Home(folders=FOLDERS, start="systemctl start seaway" if systemd else "seaway agent")
    return Home(folders=(FOLDERS[0], path.parent), start=f"seaway agent --run-dir {path.parent}")
