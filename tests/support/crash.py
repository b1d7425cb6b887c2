"""Kill an agent at every step of an operation, and look at what the next one finds.

    python -m tests.support.crash OPERATION FOLDER TARGET

runs in the namespace that plays the host; TARGET is the path of another one to
attach.  For n = 1, 2, ... a forked child takes up the state in FOLDER, performs
the operation and sends itself SIGKILL at its n-th step; the next child takes
up what that one left, as a restarted agent does, and compares every kernel
object, address and port with how it was before the operation and how it is
after one that nobody disturbed.  It must be one of the two, exactly.  Then it
performs the operation again, as the caller would, undoes it, and goes on to
its own end.

A step is anything that leaves a trace: a store commit, a netlink message (also
each one inside a batch), an nft transaction, a system call on a namespace, a
sysctl, a bound port.  Prints what it found as JSON: {"steps": names, "problems": lines}.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import structlog

from seaway.agent import networks, sandboxes
from seaway.agent.agent import Agent, Settings
from seaway.agent.bindings import Bindings
from seaway.agent.requests import EndpointRequest, NetworkRequest, SandboxRequest
from seaway.errors import Conflict, NotFound
from seaway.kernel import apply, netns, observe
from seaway.kernel.netlink import Netlink
from seaway.kernel.nft import Nft
from seaway.model.names import VETH_PREFIX
from seaway.plan.resources import TABLE, describe
from seaway.store.sqlite import SqliteStore

# -- steps ------------------------------------------------------------------------------------


class Steps:
    """Counts the steps of one process, and ends it at the one called *fatal* (0: never)."""

    def __init__(self) -> None:
        self.counting = False
        self.fatal = 0
        self.count = 0

    def __call__(self, name: str) -> None:
        if not self.counting:
            return
        self.count += 1
        if self.count == self.fatal:
            os.write(3, name.encode())
            os.kill(os.getpid(), signal.SIGKILL)


step = Steps()


def around(owner: Any, name: str, label: str) -> None:
    """Make calling *owner.name* a step; its end is the beginning of the next one."""
    real = getattr(owner, name)

    def stepped(*args: Any, **kwargs: Any) -> Any:
        step(f"before {label}")
        return real(*args, **kwargs)

    setattr(owner, name, stepped)


class SteppingLibc:
    """The C library, with a step before each call that makes or drops a namespace."""

    def __init__(self, libc: Any) -> None:
        self._libc = libc

    def __getattr__(self, name: str) -> Any:
        if name in ("unshare", "mount", "umount2"):
            step(f"before {name}")
        return getattr(self._libc, name)


def watch_steps() -> None:
    """Put steps around everything that leaves a trace."""
    around(SqliteStore, "commit", "the store's commit")
    around(Nft, "run", "an nft transaction")
    around(Bindings, "bind", "binding ports")
    around(Bindings, "release", "letting go of ports")
    around(netns, "create", "making a namespace")
    around(netns, "remove", "removing a namespace")
    around(apply, "write_sysctl", "a sysctl")
    netns._libc = SteppingLibc(netns._libc)
    whole = Netlink.batch

    def one_by_one(self: Netlink, messages: Any) -> None:
        for message in messages:
            step(f"before {message.operation} {message.target}")
            whole(self, [message])

    Netlink.batch = one_by_one  # type: ignore[method-assign]


# -- what there is ----------------------------------------------------------------------------


def kernel_objects(agent: Agent, target: str) -> Iterator[str]:
    """Everything in the host's namespace and the target's, whoever made it."""
    sock = agent._applier.netlink
    yield from (f"link {link.name} {link.kind} up={link.up}" for link in observe.links(sock))
    yield from map(describe, observe.host(sock))
    yield from map(describe, observe.elements(observe.table(agent._applier.nft)))
    kept = Path(agent.settings.run_dir, "netns")
    yield from (f"file {path}" for path in kept.glob("*"))
    yield from (describe(n) for n in observe.kept_netns(str(kept)))
    for path in (target, *map(str, kept.glob("*"))):
        with Netlink(path) as inside:
            links = [link.name for link in observe.links(inside)]
            yield from (f"link {name} in {path}" for name in links)
        yield from map(describe, observe.inside(path, [n for n in links if n != "lo"]))


def bound_ports() -> Iterator[str]:
    """Every bound TCP and UDP port of the host, ours or not, but not the name server's."""
    for kind in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            local = line.split()[1]
            if int(local.rpartition(":")[2], 16) != 53:
                yield f"{kind} {local}"


def picture(agent: Agent, target: str) -> list[str]:
    """All there is, sorted: kernel objects, ports, and what the state says of addresses."""
    state = agent.core.state
    held = [
        f"held {address} by {name}"
        for network in state.networks
        for address, name in state.holders(network).items()
    ]
    names = [f"network {n.name}" for n in state.networks.values()]
    names += [f"sandbox {s.name} {s.phase} {s.published}" for s in state.sandboxes.values()]
    names += [f"endpoint {e.id} {e.addresses}" for e in state.endpoints.values()]
    return sorted([*kernel_objects(agent, target), *bound_ports(), *held, *names])


# -- operations -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Operation:
    """What is done, and how it is undone.

    Attributes:
        given: Done once, before everything.
        done: The error that says that it has been done already.
    """

    do: Callable[[Agent, str], Awaitable[object]]
    undo: Callable[[Agent, str], Awaitable[object]]
    given: Callable[[Agent, str], Awaitable[object]]
    done: type[Exception]


PORTS = ["8080:80", "5353:53/udp", "9000-9003:9000-9003", "127.0.0.1:7000:70,from=192.0.2.0/24"]


async def _networks(agent: Agent, _target: str) -> None:
    for name, octet in (("front", 1), ("back", 2)):
        subnets = [f"10.77.{octet}.0/24", f"fd77:{octet}::/64"]
        await networks.create(agent.core, NetworkRequest(name=name, subnets=subnets))


async def _macvlan(agent: Agent, _target: str) -> None:
    request = NetworkRequest(
        name="wire", driver="macvlan", options={"parent": "eth0"}, subnets=["192.0.2.0/24"]
    )
    await networks.create(agent.core, request)


async def _attach(agent: Agent, target: str) -> None:
    request = SandboxRequest(
        name="box", netns=target, networks=[EndpointRequest(network="front")], publish=PORTS
    )
    await sandboxes.create(agent.core, request)


async def _attach_macvlan(agent: Agent, target: str) -> None:
    request = EndpointRequest(network="wire", ip="192.0.2.77")
    await sandboxes.create(agent.core, SandboxRequest(name="box", netns=target, networks=[request]))


async def _make(agent: Agent, _target: str) -> None:
    request = SandboxRequest(
        name="made",
        networks=[EndpointRequest(network="front")],
        publish=PORTS[:1],
        sysctls={"net.ipv4.ip_default_ttl": "77"},
        creator=os.getppid(),
    )
    await sandboxes.create(agent.core, request)


async def _remove(agent: Agent, name: str) -> None:
    await sandboxes.remove(agent.core, name)


async def _connect(agent: Agent, _target: str) -> None:
    request = EndpointRequest(network="back", gw_priority=1)
    await sandboxes.connect(agent.core, "box", request)


async def _disconnect(agent: Agent, _target: str) -> None:
    await sandboxes.disconnect(agent.core, "box", "back")


async def _create_network(agent: Agent, _target: str) -> None:
    request = NetworkRequest(name="extra", subnets=["10.77.9.0/24", "fd77:9::/64"], internal=True)
    await networks.create(agent.core, request)


async def _remove_network(agent: Agent, _target: str) -> None:
    await networks.remove(agent.core, "extra")


async def _stop(agent: Agent, _target: str) -> None:
    if agent.core.state.sandbox("made").phase == "stopped":
        raise NotFound("stopped already")
    await sandboxes.stopped(agent.core, "made")


async def _up(agent: Agent, _target: str) -> None:
    if agent.core.state.sandbox("made").phase != "stopped":
        raise Conflict("up already")
    await sandboxes.up(agent.core, "made")
    # What `seaway start` tells next: a container that has never had a process would be stopped.
    made = agent.core.state.sandbox("made")
    process = os.getppid()
    await sandboxes._put(agent.core, made, pid=process, started=sandboxes.start_time(process))


async def _repair(agent: Agent, _target: str) -> None:
    """Others delete the table and a link; the agent is killed over the repair."""
    agent._applier.nft.run(f"delete table inet {TABLE}")
    agent._applier.remove_links([_veth(agent)])
    agent.core.kernel.audit("the test")


def _veth(agent: Agent) -> str:
    names = [link.name for link in observe.links(agent._applier.netlink)]
    return next(name for name in names if name.startswith(VETH_PREFIX))


async def _nothing(_agent: Agent, _target: str) -> None:
    """A repair needs no undoing."""


def _after(*steps: Callable[[Agent, str], Awaitable[object]]) -> Any:
    async def work(agent: Agent, target: str) -> None:
        for one in steps:
            await one(agent, target)

    return work


def _named(name: str) -> Any:
    return lambda agent, _target: _remove(agent, name)


OPERATIONS = {
    "attach": Operation(_attach, _named("box"), _networks, Conflict),
    "detach": Operation(_named("box"), _attach, _after(_networks, _attach), NotFound),
    "attach-macvlan": Operation(_attach_macvlan, _named("box"), _macvlan, Conflict),
    "detach-macvlan": Operation(
        _named("box"), _attach_macvlan, _after(_macvlan, _attach_macvlan), NotFound
    ),
    "connect": Operation(_connect, _disconnect, _after(_networks, _attach), Conflict),
    "disconnect": Operation(_disconnect, _connect, _after(_networks, _attach, _connect), NotFound),
    "create": Operation(_make, _named("made"), _networks, Conflict),
    "remove": Operation(_named("made"), _make, _after(_networks, _make), NotFound),
    "stop": Operation(_stop, _up, _after(_networks, _make), NotFound),
    "up": Operation(_up, _stop, _after(_networks, _make, _stop), Conflict),
    "repair": Operation(_repair, _nothing, _after(_networks, _attach), NotFound),
    "network-create": Operation(_create_network, _remove_network, _networks, Conflict),
    "network-rm": Operation(
        _remove_network, _create_network, _after(_networks, _create_network), NotFound
    ),
}


# -- the run ----------------------------------------------------------------------------------


class Run:
    """One operation in one place."""

    def __init__(self, operation: Operation, folder: Path, target: str) -> None:
        self._operation = operation
        self._target = target
        self._settings = Settings(state_dir=folder / "state", run_dir=folder / "run")
        self._before: list[str] = []
        self._after: list[str] = []

    def everything(self) -> dict[str, list[str]]:
        """Kill at the first step, the second, and so on until it is through."""
        self._before, self._after = self._pictures()
        steps: list[str] = []
        problems: list[str] = []
        while True:
            wrong, name = self._look_and_die(len(steps) + 1)
            problems += [f"killed {steps[-1]}: {line}" for line in wrong]
            if not name:
                return {"steps": steps, "problems": problems}
            steps.append(name)

    def _pictures(self) -> tuple[list[str], list[str]]:
        async def work(agent: Agent) -> Any:
            await self._operation.given(agent, self._target)
            before = picture(agent, self._target)
            await self._do(agent)
            after = picture(agent, self._target)
            await self._undo(agent)
            assert before == picture(agent, self._target), "undoing does not lead back"
            return before, after

        before, after = self._in_child(work)
        return before, after

    def _look_and_die(self, at: int) -> tuple[list[str], str]:
        """Look at what the last one left, then perform the operation up to its step *at*.

        Returns:
            What is wrong, and the name of the step; "" if the operation has fewer.
        """

        async def work(agent: Agent) -> str:
            wrong = await self._look(agent) if at > 1 else []
            os.write(3, json.dumps(wrong).encode() + b"\n")
            step.fatal, step.counting = at, True
            await self._do(agent)
            step("at its end")
            step.counting = False
            await self._undo(agent)
            return ""

        wrong, _, name = str(self._in_child(work)).partition("\n")
        assert name, "a child failed; its own words are above"
        return json.loads(wrong), name.strip('"')

    async def _look(self, agent: Agent) -> list[str]:
        wrong = [f"after the restart, to do: {line}" for line in agent.core.kernel.look().lines()]
        found = picture(agent, self._target)
        if found not in (self._before, self._after):
            wrong += _differences("after the restart", found, self._before, self._after)
        with suppress(self._operation.done):
            await self._do(agent)
        wrong += _differences("repeated", picture(agent, self._target), self._after)
        await self._undo(agent)
        return wrong + _differences("undone", picture(agent, self._target), self._before)

    async def _do(self, agent: Agent) -> None:
        agent.core.cursors.clear()  # else the same container has another address each time
        await self._operation.do(agent, self._target)

    async def _undo(self, agent: Agent) -> None:
        agent.core.cursors.clear()
        await self._operation.undo(agent, self._target)

    def _in_child(self, work: Callable[[Agent], Awaitable[Any]]) -> Any:
        """Fork, take up the state as an agent does at its start, *work*; return its result.

        Of a child that kills itself, and of one that wrote before its end, what it wrote.
        """
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(theirs, 3)
            try:
                os.write(3, json.dumps(asyncio.run(self._agent(work))).encode())
            finally:
                os._exit(0)
        os.close(theirs)
        with os.fdopen(ours) as pipe:
            text = pipe.read()
        os.waitpid(child, 0)
        assert text, "a child failed; its own words are above"
        return text if "\n" in text else json.loads(text)

    async def _agent(self, work: Callable[[Agent], Awaitable[Any]]) -> Any:
        agent = Agent(self._settings)
        state = agent.core.state
        for module in (networks, sandboxes):  # random ids would make no two pictures alike
            module.new_id = lambda: next(  # type: ignore[attr-defined]
                i
                for i in map("{:012x}".format, count(1))
                if i not in state.networks and i not in state.sandboxes
            )
        await agent.prepare()
        found = await work(agent)
        agent.close()
        return found


def _differences(when: str, found: list[str], *allowed: list[str]) -> list[str]:
    """Compare with the nearest of *allowed*."""
    nearest = min(allowed, key=lambda one: len(set(one) ^ set(found)))
    more = [f"{when}, left over: {line}" for line in found if line not in nearest]
    return more + [f"{when}, lost: {line}" for line in nearest if line not in found]


def main() -> None:
    """Read the command line, run, print."""
    name, folder, target = sys.argv[1:]
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    watch_steps()
    sys.stdout.write(json.dumps(Run(OPERATIONS[name], Path(folder), target).everything()))


if __name__ == "__main__":
    main()
