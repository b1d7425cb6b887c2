"""What ``seaway attach`` and ``seaway detach`` do."""

from __future__ import annotations

import os
from typing import Any

from seaway.cli.client import Client, segment
from seaway.cli.endpoints import endpoints, pairs, sandbox
from seaway.cli.flags import UsageError
from seaway.cli.parse import Parsed
from seaway.errors import Conflict


def attach(parsed: Parsed, _words: object) -> int:
    """Attach a process or a namespace; print its name and addresses."""
    target = parsed.argument("PID|PATH").value or ""
    request = sandbox(parsed, endpoints(parsed, "bridge"))
    request["sysctls"] = pairs(parsed, "sysctl")
    if target.isascii() and target.isdigit():
        request["pid"] = int(target)
    elif "/" in target:
        # The last part stays: in /proc/PID/ns it is a link that leads nowhere by name.
        folder, name = os.path.split(target)
        request["netns"] = os.path.join(os.path.realpath(folder), name)  # noqa: PTH118
    else:
        # A bare name is what `ip netns` calls a namespace.
        request["netns"] = f"/run/netns/{target}"
        if not os.path.exists(request["netns"]):  # noqa: PTH110 - pathlib costs 5 ms
            raise UsageError(f"{target!r} is neither a process number nor a network namespace")
    made: Any = Client().request("POST", "/v1/sandboxes", request)
    addresses = " ".join(a for n in made["networks"] for a in (n["ipv4"], n["ipv6"]) if a)
    print(f"{made['name']} {addresses}".rstrip())
    return 0


def detach(parsed: Parsed, _words: object) -> int:
    """Detach and print the names."""
    client = Client()
    for name in parsed.argument("NAME").list:
        found: Any = client.request("GET", f"/v1/sandboxes/{segment(name)}")
        if not found["attached"]:
            raise Conflict(f"{name!r} is a container: remove it with 'seaway rm {name}'")
        client.request("DELETE", f"/v1/sandboxes/{found['id']}")
        print(found["name"])
    return 0


COMMANDS = {"attach": attach, "detach": detach}
