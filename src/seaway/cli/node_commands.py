"""What ``seaway node ...`` does."""

from __future__ import annotations

import sys
from typing import Any

from seaway.cli.client import Client, segment
from seaway.cli.output import Progress, inspection, listing
from seaway.cli.parse import Parsed

_COLUMNS = {
    "NAME": "Node",
    "ADDRESS": "Address",
    "STATUS": "Status",
    "STORE": "Store",
    "WIREGUARD": "WireGuard",
    "NUMBER": "Number",
    "CONTAINERS": "Containers",
    "VERSION": "Version",
}


def ls(parsed: Parsed, _words: object) -> int:
    """List hosts; the one we are on has a star."""
    found: Any = Client().request("GET", "/v1/nodes")
    rows = [_record(node) for node in found]
    quiet = "Name" if parsed.flag("quiet").on else ""
    print(listing(rows, _COLUMNS, style=parsed.flag("format").value or "", quiet=quiet), end="")
    return 0


def inspect(parsed: Parsed, _words: object) -> int:
    """Show hosts in full."""
    client = Client()
    found: list[Any] = [
        client.request("GET", f"/v1/nodes/{segment(name)}") for name in parsed.argument("NODE").list
    ]
    print(inspection(found, style=parsed.flag("format").value or ""), end="")
    return 0


def drain(parsed: Parsed, _words: object) -> int:
    """Drain hosts, or undo that, and print their names."""
    client = Client()
    for name in parsed.argument("NODE").list:
        client.request("POST", f"/v1/nodes/{segment(name)}/drain", {"undo": parsed.flag("undo").on})
        print(name)
    return 0


def rm(parsed: Parsed, _words: object) -> int:
    """Remove hosts and print their names, and on stderr what is left to do."""
    client = Client()
    force = "?force=true" if parsed.flag("force").on else ""
    for name in parsed.argument("NODE").list:
        with Progress(f"Removing {name}"):
            found: Any = client.request("DELETE", f"/v1/nodes/{segment(name)}{force}")
        print(name)
        if found["note"]:
            print(f"seaway: {found['note']}", file=sys.stderr)
    return 0


def _record(node: Any) -> dict[str, object]:
    return {
        "Node": f"{node['name']} *" if node["self"] else node["name"],
        "Name": node["name"],
        "ID": node["id"],
        "Address": ", ".join(node["addresses"]),
        "Status": node["status"],
        "Store": node["store"] or "-",
        "WireGuard": "yes" if node["wireguard"] else "-",
        "Number": node["number"],
        "Containers": node["containers"],
        "Version": node["version"],
        "Self": node["self"],
    }


COMMANDS = {"ls": ls, "inspect": inspect, "drain": drain, "rm": rm}
