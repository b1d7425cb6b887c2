"""One cluster of all hosts of a lab, made by the same API calls as ``seaway cluster`` makes."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from seaway.errors import AgentUnreachable, SeawayError, StoreError
from seaway.lab.topology import Lab, Machine

Ask = Callable[..., Any]
"""Like ask(); tests give a stand-in."""

COMPLETE_SECONDS: Final = 30.0
_ASK_SECONDS: Final = 30.0
_PACE: Final = 0.05


def ask(host: Machine, method: str, path: str, body: object | None = None) -> Any:
    """Ask the agent of *host*; return what it says.

    Raises:
        AgentUnreachable: It does not answer.
        StoreError: It refuses; the message has its own words.
    """
    connection = _Connection(str(host.socket))
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        text = reply.read().decode()
        if reply.status >= 400:
            raise StoreError(f"{host.name} refuses {method} {path}: {_message(text)}")
        return json.loads(text or "null")
    except (OSError, http.client.HTTPException, ValueError) as err:
        raise AgentUnreachable(
            f"the agent of {host.name} does not answer {method} {path} ({err}): "
            f"start it with `{host.start_command}`"
        ) from None
    finally:
        connection.close()


def form(
    lab: Lab, report: Callable[[str], None], ask: Ask = ask, *, stores: int | None = None
) -> None:
    """Make one cluster of all hosts of *lab*, whose agents run; those in one stay in it.

    Hosts join one after the other, so that their numbers are those in their names.

    Args:
        report: Gets a line about each host.
        stores: Wait for so many; None: 3 from three hosts on, of which none is behind a NAT.

    Raises:
        AgentUnreachable: An agent does not answer.
        StoreError: A host refuses, or the cluster is not complete after COMPLETE_SECONDS.
    """
    hosts = [lab.host(name) for name in lab.host_names]
    members = [host for host in hosts if ask(host, "GET", "/v1/cluster")["cluster"]]
    newcomers = [host for host in hosts if host not in members]
    if not newcomers:
        return
    made = not members
    if made:
        report(f"{hosts[0].name} makes a cluster")
        ask(hosts[0], "POST", "/v1/cluster", {})
        members = [newcomers.pop(0)]
    _join(members[0], newcomers, report, ask)
    if stores is None:
        # A cluster that somebody else made may be meant to have another number of them.
        stores = (3 if len(hosts) >= 3 else 1) if made else 0
    _wait_complete(members[0], len(hosts), stores, ask)


def forget(lab: Lab, gone: Sequence[Machine], ask: Ask = ask) -> None:
    """Have the cluster forget hosts that will not come back; fine if it does not know them."""
    left = [lab.host(name) for name in lab.host_names if lab.host(name) not in gone]
    for host in gone:
        with suppress(SeawayError):
            ask(left[0], "DELETE", f"/v1/nodes/{host.name}?force=true")


def _join(
    seed: Machine, newcomers: Sequence[Machine], report: Callable[[str], None], ask: Ask
) -> None:
    if not newcomers:
        return
    token = ask(seed, "GET", "/v1/cluster/token")["token"]
    port = ask(seed, "GET", "/v1/cluster")["ports"]["join"]
    for host in newcomers:
        report(f"{host.name} joins")
        wanted = {"token": token, "address": str(seed.v4.ip), "port": port, "advertise": []}
        ask(host, "POST", "/v1/cluster/join", wanted)


def _wait_complete(seed: Machine, hosts: int, stores: int, ask: Ask) -> None:
    """Wait until that many hosts are alive, and that many stores healthy, and all others too."""
    deadline = time.monotonic() + COMPLETE_SECONDS
    while (missing := _missing(ask(seed, "GET", "/v1/cluster"), hosts, stores)) != "":
        if time.monotonic() > deadline:
            raise StoreError(
                f"the cluster is not complete after {COMPLETE_SECONDS:.0f} s, {missing}: "
                f"look at {seed.state_dir}/agent.log"
            )
        time.sleep(_PACE)


def _missing(found: Any, hosts: int, stores: int) -> str:
    alive = found["hosts"]["alive"]
    healthy = sum(1 for s in found["stores"] if s["healthy"] and not s["learner"])
    wanted = max(stores, len(found["stores"]))
    if alive < hosts:
        return f"{alive} of {hosts} hosts alive"
    return f"{healthy} of {wanted} stores healthy" if healthy < wanted else ""


def _message(text: str) -> str:
    """The agent's own words, out of its reply."""
    try:
        return str(json.loads(text)["message"])
    except (ValueError, TypeError, KeyError):
        return text.strip() or "it said nothing"


class _Connection(http.client.HTTPConnection):
    """To a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("seaway", timeout=_ASK_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect there."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_ASK_SECONDS)
        self.sock.connect(self._path)
