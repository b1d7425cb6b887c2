"""What the commands about this host do."""

from __future__ import annotations

import json
import time
from typing import Any

from seaway.cli.client import Client
from seaway.cli.flags import UsageError
from seaway.cli.output import inspection
from seaway.cli.parse import Parsed
from seaway.errors import Conflict, SeawayError, Unsupported


def status(parsed: Parsed, _words: object) -> int:
    """Say how the agent is; the exit status is 1 if something failed."""
    found: Any = Client().request("GET", "/v1/status")
    if style := parsed.flag("format").value:
        print(inspection([found], style=style), end="")
        return 0 if found["healthy"] else 1
    state = "healthy" if found["healthy"] else "degraded"
    print(f"Agent     {state}, version {found['version']}, up {found['uptime']:.0f} s")
    objects = ", ".join(f"{n} {kind.replace('_', ' ')}" for kind, n in found["objects"].items())
    print(f"Objects   {objects}")
    print(f"Repairs   {found['repairs']} kernel objects put right since the start")
    drops = ", ".join(
        f"{n} {name.removeprefix('drop_')}" for name, n in found["drops"].items() if n
    )
    print(f"Dropped   {drops or 'nothing'}")
    if cluster := found.get("cluster"):
        from seaway.cli.cluster_commands import at_a_glance  # noqa: PLC0415 - only in a cluster

        for name, text in at_a_glance(cluster):
            print(f"{name:<10}{text}")
    for problem in found["problems"]:
        print(f"Problem   {problem['object']}: {problem['error']}")
    return 0 if found["healthy"] else 1


def plan(parsed: Parsed, _words: object) -> int:
    """Show what the next audit would change."""
    found: Any = Client().request("GET", "/v1/plan")
    if parsed.flag("format").value == "json":
        print(json.dumps(found))
    elif found["lines"]:
        print("\n".join(found["lines"]))
    else:
        print("Nothing: the kernel is as it should be.")
    return 0


def events(parsed: Parsed, _words: object) -> int:
    """Show what happened, a line each."""
    since = time.time() - _seconds(parsed.flag("since").value or "31536000")  # a year
    follow = "true" if parsed.flag("follow").on else "false"
    as_json = parsed.flag("format").value == "json"
    # Between two events there may be hours of silence.
    client = Client(timeout=86400.0 * 365)
    for event in client.stream("GET", f"/v1/events?since={since}&follow={follow}"):
        print(json.dumps(event) if as_json else _event_line(event), flush=True)
    return 0


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"--since {text!r} is not a number of seconds") from None


def _event_line(event: Any) -> str:
    when = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(event["time"]))
    facts = " ".join(f"{name}={value}" for name, value in event["facts"].items())
    return f"{when}  {event['kind']}  {event['subject']}  {facts}".rstrip()


def doctor(parsed: Parsed, _words: object) -> int:
    """Examine this host; the exit status is 1 if anything failed."""
    from seaway.cli.diagnosis import examine  # noqa: PLC0415 - only the doctor pays for it

    return examine(parsed)


def agent(parsed: Parsed, _words: object) -> int:
    """Run the agent until it is told to stop."""
    from pathlib import Path  # noqa: PLC0415 - only the agent pays for it

    from seaway.agent.agent import Settings  # noqa: PLC0415
    from seaway.agent.main import run  # noqa: PLC0415

    def folder(flag: str) -> Path | None:
        text = parsed.flag(flag).value
        return Path(text).absolute() if text else None

    return run(
        Settings(
            state_dir=folder("state-dir") or Path("/var/lib/seaway"),
            run_dir=folder("run-dir") or Path("/run/seaway"),
            node_name=parsed.flag("node-name").value or "",
            podman_root=folder("podman-root"),
            image_store=folder("image-store"),
        )
    )


def cleanup(parsed: Parsed, _words: object) -> int:
    """Remove what is ours from the kernel, by its marks."""
    import os  # noqa: PLC0415 - the others do not need it

    from seaway.kernel.cleanup import sweep  # noqa: PLC0415 - only cleanup pays for it

    if os.geteuid() != 0:
        raise Unsupported("cleanup needs root: run it with sudo")
    told = parsed.flag("run-dir").value
    client = Client(f"{told}/seaway.sock" if told else "")
    run_dir = os.path.dirname(client.socket_path)  # noqa: PTH120 - as the agent of this host has it
    try:
        client.request("GET", "/v1/status")
    except SeawayError:
        lines = sweep(f"{run_dir}/netns")
        print("\n".join(lines) if lines else "Nothing of Seaway's is in the kernel.")
        return 0
    raise Conflict("the agent runs and would put everything back: stop it first")


def completion(parsed: Parsed, _words: object) -> int:
    """Print a shell's script."""
    from seaway.cli.completion import render_completion  # noqa: PLC0415 - only here

    print(render_completion(parsed.argument("SHELL").value or ""), end="")
    return 0


def complete(parsed: Parsed, _words: object) -> int:
    """Print what the last word may become."""
    from seaway.cli import completion as shell  # noqa: PLC0415 - only here
    from seaway.cli.commands import TREE  # noqa: PLC0415

    words = parsed.argument("WORDS").list
    for word in shell.complete(TREE, words, max(len(words) - 1, 0), _names):
        print(word)
    return 0


def _names(kind: str) -> list[str]:
    if kind.startswith("lab"):
        from seaway.cli.lab import complete as lab_names  # noqa: PLC0415 - only labs pay for it

        return lab_names(kind)
    path = {
        "network": "/v1/networks",
        "container": "/v1/sandboxes",
        "node": "/v1/nodes",
    }.get(kind)
    found: Any = Client(timeout=2.0).request("GET", path) if path else []
    return [item["name"] for item in found]


COMMANDS = {
    "status": status,
    "plan": plan,
    "events": events,
    "doctor": doctor,
    "agent": agent,
    "cleanup": cleanup,
    "completion": completion,
    "__complete": complete,
}
