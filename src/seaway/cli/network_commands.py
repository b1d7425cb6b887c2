"""What ``seaway network ...`` does."""

from __future__ import annotations

import sys
from typing import Any

from seaway.cli.client import Client, segment
from seaway.cli.endpoints import endpoint, pairs
from seaway.cli.filters import NETWORK, scope, select
from seaway.cli.output import Progress, inspection, listing
from seaway.cli.parse import Parsed
from seaway.errors import NotFound

_COLUMNS = {
    "NAME": "Name",
    "DRIVER": "Driver",
    "SCOPE": "Scope",
    "SUBNETS": "Subnets",
    "INTERNAL": "Internal",
    "CONTAINERS": "Containers",
}


def create(parsed: Parsed, _words: object) -> int:
    """Create a network and print its name."""
    request = {
        "name": parsed.argument("NAME").value,
        "driver": parsed.flag("driver").value,
        "subnets": parsed.flag("subnet").list,
        "gateways": parsed.flag("gateway").list,
        "ip_ranges": parsed.flag("ip-range").list,
        "aux_addresses": pairs(parsed, "aux-address"),
        "ipv4": parsed.flag("ipv4").on,
        "ipv6": parsed.flag("ipv6").on,
        "internal": parsed.flag("internal").on,
        "options": _options(parsed),
        "labels": pairs(parsed, "label"),
    }
    with Progress(f"Creating network {request['name']}"):
        made: Any = Client().request("POST", "/v1/networks", request)
    print(made["name"])
    return 0


def _options(parsed: Parsed) -> dict[str, str]:
    """Read ``-o``; Docker's ``--opt encrypted`` has no value."""
    found = pairs(parsed, "opt")
    return found | ({"encrypted": "true"} if found.get("encrypted") == "" else {})


def ls(parsed: Parsed, _words: object) -> int:
    """List networks."""
    found: Any = Client().request("GET", "/v1/networks")
    rows = [
        {
            "Name": n["name"],
            "ID": n["id"],
            "Driver": n["driver"],
            "Scope": scope(n),
            "Subnets": ", ".join(s["subnet"] for s in n["subnets"]),
            "Internal": str(n["internal"]).lower(),
            "Containers": str(len(n["containers"])),
            "Labels": ",".join(f"{k}={v}" for k, v in n["labels"].items()),
        }
        for n in select(found, parsed.flag("filter").list, NETWORK)
    ]
    quiet = "Name" if parsed.flag("quiet").on else ""
    print(listing(rows, _COLUMNS, style=parsed.flag("format").value or "", quiet=quiet), end="")
    return 0


def inspect(parsed: Parsed, _words: object) -> int:
    """Show networks in full."""
    client = Client()
    found: list[Any] = [
        client.request("GET", f"/v1/networks/{segment(name)}")
        for name in parsed.argument("NETWORK").list
    ]
    print(inspection(found, style=parsed.flag("format").value or ""), end="")
    return 0


def rm(parsed: Parsed, _words: object) -> int:
    """Remove networks and print their names."""
    client = Client()
    for name in parsed.argument("NETWORK").list:
        try:
            client.request("DELETE", f"/v1/networks/{segment(name)}")
        except NotFound:
            if not parsed.flag("force").on:
                raise
            continue
        print(name)
    return 0


def connect(parsed: Parsed, _words: object) -> int:
    """Attach a container to one more network."""
    network = parsed.argument("NETWORK").value or ""
    request = endpoint(
        network,
        aliases=parsed.flag("alias").list,
        ip=parsed.flag("ip").value,
        ip6=parsed.flag("ip6").value,
        mac=parsed.flag("mac-address").value,
        priority=parsed.flag("gw-priority").value,
    )
    body = {"sandbox": parsed.argument("CONTAINER").value, "endpoint": request}
    Client().request("POST", f"/v1/networks/{segment(network)}/connect", body)
    return 0


def disconnect(parsed: Parsed, _words: object) -> int:
    """Detach a container from a network."""
    network = parsed.argument("NETWORK").value or ""
    body = {"sandbox": parsed.argument("CONTAINER").value, "force": parsed.flag("force").on}
    Client().request("POST", f"/v1/networks/{segment(network)}/disconnect", body)
    return 0


def prune(parsed: Parsed, _words: object) -> int:
    """Remove unused networks and print their names."""
    if not parsed.flag("force").on and sys.stdin.isatty():
        print("This removes every network that nobody is on.  Go on? [y/N] ", end="", flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            return 1
    gone: Any = Client().request("POST", "/v1/networks/prune")
    for name in gone["removed"]:
        print(name)
    return 0


COMMANDS = {
    "create": create,
    "ls": ls,
    "inspect": inspect,
    "rm": rm,
    "connect": connect,
    "disconnect": disconnect,
    "prune": prune,
}
