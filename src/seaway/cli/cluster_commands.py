"""What ``seaway cluster ...`` does."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from seaway.cli.client import Client
from seaway.cli.flags import UsageError
from seaway.cli.output import Progress, inspection, table
from seaway.cli.parse import Parsed
from seaway.errors import InvalidSpec, NotFound

_PATIENCE = 120.0  # seconds; a store that starts on a slow disk takes some
_TOKEN_MAX = 4096  # characters that are read; it has 102

ENCRYPTIONS = {
    "kernel": "kernel WireGuard",
    "wireguard-go": "wireguard-go",
    "": "none: no encrypted networks on this host",
}
"""What does it here -> how we call that."""


def init(parsed: Parsed, _words: object) -> int:
    """Make a cluster; print the command that others join with."""
    base = number(parsed, "port")
    request = {
        "advertise": split(parsed.flag("advertise").list),
        "stores": number(parsed, "stores"),
        "port": base,
        "lease": number(parsed, "lease"),
        "etcd": split(parsed.flag("etcd").list),
        "etcd_ca": _pem(parsed, "etcd-ca"),
        "etcd_cert": _pem(parsed, "etcd-cert"),
        "etcd_key": _pem(parsed, "etcd-key"),
    }
    with Progress("Making a cluster"):
        made: Any = Client(timeout=_PATIENCE).request("POST", "/v1/cluster", request)
    if parsed.flag("quiet").on:
        print(made["token"])
        return 0
    print(f"Cluster {made['cluster']} is made, and {made['host']} is its first host.")
    print(f"Hosts talk to each other on ports {_ports(base)}.")
    _print_invitation(made)
    return 0


def join(parsed: Parsed, _words: object) -> int:
    """Join a cluster; print who we are in it."""
    from seaway.cluster.joining import parse_server  # noqa: PLC0415 - only joining pays for it

    server = parse_server(parsed.argument("ADDRESS[:PORT]").value or "")
    request = {
        "token": _token(parsed),
        "address": server.address,
        "port": server.port,
        "advertise": split(parsed.flag("advertise").list),
    }
    with Progress(f"Joining the cluster of {server}"):
        found: Any = Client(timeout=_PATIENCE).request("POST", "/v1/cluster/join", request)
    print(
        f"{found['host']} has joined cluster {found['cluster']} as number {found['number']}: "
        f"{_many(found['hosts'], 'host')} now."
    )
    return 0


def _token(parsed: Parsed) -> str:
    """Take the token from where it was given; not everybody may see that, unlike a command line.

    Raises:
        UsageError: It was given nowhere.
    """
    told = parsed.flag("token").value
    if told == "-" and sys.stdin.isatty():
        from getpass import getpass  # noqa: PLC0415 - only who types it pays for it

        told = getpass("Token: ")
    elif told == "-":
        told = sys.stdin.read(_TOKEN_MAX)
    elif told is None:
        told = os.environ.get("SEAWAY_TOKEN")
    if not told:
        raise UsageError(
            "seaway cluster join: --token is missing: see 'seaway cluster token' there"
        )
    return told


def leave(parsed: Parsed, _words: object) -> int:
    """Leave the cluster and print which."""
    request = {"force": parsed.flag("force").on}
    with Progress("Leaving the cluster"):
        gone: Any = Client(timeout=_PATIENCE).request("POST", "/v1/cluster/leave", request)
    print(f"This host has left cluster {gone['cluster']}.")
    return 0


def token(parsed: Parsed, _words: object) -> int:
    """Show the token, a new one if asked to."""
    if parsed.argument("show|rotate").value == "rotate":
        found: Any = Client().request("POST", "/v1/cluster/token/rotate")
    else:
        found = Client().request("GET", "/v1/cluster/token")
    if parsed.flag("quiet").on:
        print(found["token"])
    else:
        _print_invitation(found)
    return 0


def rotate_keys(_parsed: Parsed, _words: object) -> int:
    """Have every host make a new key."""
    found: Any = Client().request("POST", "/v1/cluster/keys/rotate")
    print(f"Keys of generation {found['generation']} are being rolled out.")
    return 0


def status(parsed: Parsed, _words: object) -> int:
    """Show the cluster; the exit status is 1 if it has problems, or there is none."""
    found: Any = Client().request("GET", "/v1/cluster")
    if style := parsed.flag("format").value:
        print(inspection([found], style=style), end="")
    elif not found["cluster"]:
        raise NotFound(
            "this host is in no cluster: make one with 'seaway cluster init', "
            "or join one with what 'seaway cluster token' prints there"
        )
    else:
        print(render(found), end="")
    return 1 if found["problems"] or not found["cluster"] else 0


def render(found: Any) -> str:
    """Write what ``cluster status`` shows: a line for each fact, the stores, the problems."""
    hosts = found["hosts"]
    rows = [
        (
            "Cluster",
            f"{found['cluster']}, {hosts['alive']} of {_many(hosts['total'], 'host')} alive",
        ),
        ("This host", f"{found['host']}, number {found['number']}, {_line(found)}"),
        ("Encryption", f"{encryption(found)}, keys of generation {found['generation']}"),
        ("Lease", f"{found['lease']} s"),
        ("Ports", _ports(found["ports"]["join"]) if found["ports"] else "not known yet"),
        ("Certificate", f"expires in {_span(found['certificate_expires'] - time.time())}"),
    ]
    lines = "".join(f"{name:<13}{text}\n" for name, text in rows)
    lines += "".join(f"Problem      {p['object']}: {p['error']}\n" for p in found["problems"])
    return f"{lines}\n{stores(found['stores'])}"


def stores(found: list[Any]) -> str:
    """Render the table of stores; there are none of ours where etcd is somebody else's."""
    if not found:
        return "No host of the cluster runs etcd.\n"
    cells = [
        [
            store["host"] or "-",
            store["address"],
            "yes" if store["leader"] else "-",
            "joining" if store["learner"] else "yes" if store["healthy"] else "no",
            _size(store["size"]) if store["size"] else "-",
        ]
        for store in sorted(found, key=lambda store: str(store["host"]))
    ]
    return table(["STORE", "ADDRESS", "LEADER", "HEALTHY", "DB SIZE"], cells)


def at_a_glance(found: Any) -> list[tuple[str, str]]:
    """Say in a few lines what ``seaway status`` shows of the cluster, as (name, text)."""
    hosts = found["hosts"]
    carried = ", ".join(
        f"{_many(n, 'network')} by {carrier}" for carrier, n in found["networks"].items() if n
    )
    return [
        ("Cluster", f"{found['cluster']}, here {found['host']}, number {found['number']}"),
        ("Hosts", f"{hosts['alive']} of {hosts['total']} alive"),
        ("Stores", f"{_healthy(found['stores'])}, {_line(found)}"),
        ("Secrecy", encryption(found)),
        ("Carried", carried or "no overlay network"),
    ]


def _healthy(found: list[Any]) -> str:
    if not found:
        return "on no host of the cluster"
    return f"{sum(1 for store in found if store['healthy'])} of {len(found)} healthy"


def encryption(found: Any) -> str:
    """Say what encrypts traffic between hosts."""
    by: str = found["encryption"]
    return ENCRYPTIONS.get(by, by)


def split(values: tuple[str, ...]) -> list[str]:
    """Take a flag that may be repeated, have commas, or both."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def number(parsed: Parsed, flag: str) -> int:
    """Read a flag that takes a whole number.

    Raises:
        UsageError: It is none.
    """
    text = parsed.flag(flag).value or ""
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"--{flag} {text!r} is not a whole number")
    return int(text)


def _pem(parsed: Parsed, flag: str) -> str:
    """Read the file that *flag* names: the agent may see other files than we do."""
    path = parsed.flag(flag).value
    if not path:
        return ""
    try:
        with open(os.fsencode(path), encoding="ascii") as file:  # noqa: PTH123 - see adr/0015
            text = file.read()
    except (OSError, ValueError) as err:
        why = err.strerror if isinstance(err, OSError) else "not text"
        raise InvalidSpec(f"--{flag} {path}: {why}: name a PEM file") from None
    if "-----BEGIN " not in text:
        raise InvalidSpec(f"--{flag} {path} is no PEM file: it has no line -----BEGIN")
    return text


def _print_invitation(found: Any) -> None:
    print(f"\nTo add a host, run this on it:\n\n  {found['join']}\n")
    print("Whoever knows the token can join; 'seaway cluster token rotate' makes it void.")


def _ports(base: int) -> str:
    return f"{base}-{base + 2}/tcp and {base + 3}-{base + 5}/udp"


def _line(found: Any) -> str:
    if found["online"]:
        return "online"
    return f"offline for {_span(time.time() - found['since'])}: nothing shared can change"


def _many(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def _size(octets: int) -> str:
    return f"{octets / 1e3:.0f} kB" if octets < 1e6 else f"{octets / 1e6:.1f} MB"


def _span(seconds: float) -> str:
    """Round a time to one unit."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


COMMANDS = {
    "init": init,
    "join": join,
    "leave": leave,
    "token": token,
    "status": status,
    "rotate": rotate_keys,
}
