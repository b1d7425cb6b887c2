"""How does one agent bear a large cluster?  A thousand hosts, a hundred thousand endpoints.

All hosts but one exist only as records in a real etcd.  The one real agent has
a container on every network, so that it has to know all of them: their names,
and a route to every block of addresses.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from bench import kernel_objects
from bench.engines.etcd import URL, Store
from bench.engines.members import Members
from bench.kernel_objects import RouteWatch
from bench.look import Look
from bench.programs import Failed, run
from bench.questions.memory import field, resident
from bench.samples import Sample, say
from bench.simulation import Record, Simulation
from bench.spaces import wire
from bench.stage import Stage
from seaway import __version__
from seaway.lab import faults, processes
from seaway.lab.topology import Machine
from seaway.model.network import Network
from seaway.store import keys
from seaway.store.codec import decode
from seaway.store.etcd import Etcd, Write

ALONE = "memory, alone in its cluster"
FIRST = "memory, large cluster, before it was started again"
FULL = "memory, large cluster"
PROPORTIONAL = "proportional memory, large cluster"
PEAK = "most memory there ever was, large cluster"
READY, COMPLETE = "first start in a large cluster: ready", "first start: it knows all"
READY_AGAIN, COMPLETE_AGAIN = "start again: ready", "start again: it knows all"
NETWORKS, NODES = "network ls, large cluster", "node ls, large cluster"
ENDPOINT = "an endpoint elsewhere: its name is answered"
BLOCK = "a block elsewhere: the kernel has its route"
ENDPOINT_CPU = "an endpoint elsewhere: CPU time of the agent"
MOVED = "kernel objects changed by endpoints elsewhere"
SEAWAY, TUNNEL = "seaway", "wireguard-go"

_UNDERLAYS = (IPv4Network("10.254.0.0/16"), IPv6Network("2001:db8:254::/64"))
_OPTIONS: tuple[dict[str, str], ...] = (
    {},  # encrypted
    {},
    {"encrypted": "false", "carrier": "vxlan"},
    {"encrypted": "false", "carrier": "direct"},
)
_LINK = "cable"
_CHANGES = 50
_ASKS = 3
_BLOCKS = 20  # a /16 has 24 more than a thousand hosts need
_START_SECONDS = 120.0
_CHANGE_SECONDS = 10.0
_SETTLED_CPU = 0.05  # seconds in one
_PACE = 0.02
_TICKS = os.sysconf("SC_CLK_TCK")


def measure(stage: Stage) -> None:
    """Build the cluster, start the agent in it, and change things elsewhere."""
    machine = stage.far.alone
    with Store.running(machine.netns, machine.state_dir) as store:
        alone = _Alone(stage, machine, store)
        alone.note(ALONE, "MB", [resident(alone.pid)])
        alone.fill()
        alone.start(READY, COMPLETE)
        alone.note(FIRST, "MB", [resident(alone.pid)])
        alone.start(READY_AGAIN, COMPLETE_AGAIN)
        alone.weigh()
        alone.count()
        alone.ask()
        alone.add_endpoints()
        alone.add_blocks()


class _Alone:
    """The one real host, and what it believes to be around it."""

    def __init__(self, stage: Stage, machine: Machine, store: Store) -> None:
        self._stage = stage
        self._machine = machine
        self._store = store
        _plug(machine.netns, stage.spaces.make_bare())
        own = ",".join(str(underlay[1]) for underlay in _UNDERLAYS)
        members = Members.form(stage.far.lab, [machine], [own], etcd=[URL])
        self._agent = members.first
        for number, options in enumerate(_OPTIONS):
            members.network(f"net{number}", options, [f"10.{64 + number}.0.0/16"])
        self._look = stage.kept(self._watcher(stage))
        self._simulation = Simulation(
            hosts=stage.sizes.hosts,
            underlays=_UNDERLAYS,
            networks=self._networks(),
            endpoints=stage.sizes.containers,
            version=__version__,
        )

    @property
    def pid(self) -> int:
        """The agent's process number."""
        return self._agent.pid

    def note(self, what: str, unit: str, values: Iterable[float], who: str = SEAWAY) -> None:
        """Keep what was measured."""
        for number, value in enumerate(values):
            sample = Sample(what=what, who=who, unit=unit, round=number, value=value)
            self._stage.samples.append(sample)

    def fill(self) -> None:
        """Write all other hosts, while the agent is not there."""
        faults.kill(self._stage.far.lab, self._machine.name)
        count = self._store.write(self._simulation.records())
        say(f"{count} records written")

    def start(self, ready: str, complete: str) -> None:
        """Start the agent anew; ready is when it says so, complete when it knows the last host."""
        lab, name = self._stage.far.lab, self._machine.name
        faults.kill(lab, name)
        began = time.perf_counter()
        faults.start(lab, name)
        self.note(ready, "s", [time.perf_counter() - began])
        self._know_all()
        self.note(complete, "s", [time.perf_counter() - began])
        self._settle()

    def weigh(self) -> None:
        """Weigh the agent, and the process that encrypts for it."""
        self.note(FULL, "MB", [resident(self.pid)])
        self.note(PROPORTIONAL, "MB", [field(self.pid, "smaps_rollup", "Pss")])
        self.note(PEAK, "MB", [field(self.pid, "status", "VmHWM")])
        tunnels = processes.named("wireguard-go", self._machine.netns)
        if tunnels:
            self.note(FULL, "MB", [sum(resident(p.pid) for p in tunnels)], TUNNEL)

    def count(self) -> None:
        """Count what the kernel holds."""
        for kind, lines in kernel_objects.objects(self._machine.netns).items():
            self.note(f"{kind} in the kernel, large cluster", "objects", [len(lines)])

    def ask(self) -> None:
        """Have the command line list what there is."""
        for what, noun in ((NETWORKS, "network"), (NODES, "node")):
            self.note(what, "ms", [self._agent.command_ms(noun, "ls") for _ in range(_ASKS)])

    def add_endpoints(self) -> None:
        """Start containers elsewhere: the kernel has to learn nothing."""
        before = kernel_objects.objects(self._machine.netns)
        self.note(ENDPOINT, "ms", [self._endpoint(turn) for turn in range(_CHANGES)])
        began = _cpu_seconds(self.pid)
        for turn in range(_CHANGES, 3 * _CHANGES):
            self._store.write(self._new_endpoint(turn)[1])
        cpu = (_cpu_seconds(self.pid) - began) / (2 * _CHANGES)
        self.note(ENDPOINT_CPU, "ms", [cpu * 1e3])
        changes = kernel_objects.changes(before, kernel_objects.objects(self._machine.netns))
        self.note(MOVED, "objects", [len(changes)])
        for line in changes:
            say(f"changed: {line}")

    def add_blocks(self) -> None:
        """Have hosts take more blocks of addresses: each is one more route."""
        watch = self._stage.kept(RouteWatch(self._machine.netns))
        turns = range(min(_BLOCKS, self._stage.sizes.hosts))
        self.note(BLOCK, "ms", [self._block(watch, turn) for turn in turns])

    def _endpoint(self, turn: int) -> float:
        name, records = self._new_endpoint(turn)
        return self._after(records, lambda: self._look.name(name, _CHANGE_SECONDS))

    def _block(self, watch: RouteWatch, turn: int) -> float:
        number = self._simulation.numbers[turn]
        network = self._simulation.networks[turn % len(_OPTIONS)]
        blocks = self._simulation.blocks(network, number, turn=1)
        targets = [b.cidr for b in blocks if isinstance(b.cidr, IPv4Network)]
        records = self._simulation.block_records(blocks)
        return self._after(records, lambda: watch.wait(targets[0], _CHANGE_SECONDS))

    def _new_endpoint(self, turn: int) -> tuple[str, Iterable[Record]]:
        """Have the last hosts start one more container each: its name, and what they write."""
        simulation = self._simulation
        number = simulation.numbers[-1 - turn % len(simulation.numbers)]
        index = simulation.endpoints + turn // len(simulation.numbers)
        network = simulation.networks[turn % len(_OPTIONS)]
        name = simulation.announced(network, number, index).name
        return name, simulation.endpoint_records(network, number, index)

    def _after(self, records: Iterable[Record], wait: Callable[[], object]) -> float:
        """Write *records*; return the ms from the store's word that it has them to wait's end."""

        async def put(client: Etcd) -> float:
            await client.txn(puts=[Write(key, value) for key, value in records])
            return time.perf_counter()

        with ThreadPoolExecutor(max_workers=1) as pool:
            writing = pool.submit(self._store.ask, put)
            wait()
            seen = time.perf_counter()
            return max(0.0, seen - writing.result()) * 1e3

    def _know_all(self) -> None:
        """Wait for the last host's last name and last block on every network."""
        simulation, deadline = self._simulation, time.monotonic() + _START_SECONDS
        last = simulation.numbers[-1]
        for network in simulation.networks:
            name = simulation.announced(network, last, simulation.endpoints - 1).name
            self._look.name(name, deadline - time.monotonic())
            (block, *_) = simulation.blocks(network, last)
            argv = ["ip", "route", "show", str(block.cidr)]
            while not run(argv, self._machine.netns):
                if time.monotonic() > deadline:
                    raise Failed(f"no route to {block.cidr} after {_START_SECONDS:g} s")
                time.sleep(_PACE)

    def _settle(self) -> None:
        """Wait until the agent has nothing left to do."""
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            before = _cpu_seconds(self.pid)
            time.sleep(1.0)
            if _cpu_seconds(self.pid) - before < _SETTLED_CPU:
                return

    def _networks(self) -> list[Network]:
        """Read what the agent has made."""
        kvs, _ = self._store.ask(lambda client: client.range(keys.NETWORKS))
        found = (decode(Network, kv.value) for kv in kvs)
        return sorted(found, key=lambda network: network.name)

    def _watcher(self, stage: Stage) -> Look:
        """Have a container on every network, and look from inside it."""
        first, *others = (f"net{number}" for number in range(len(_OPTIONS)))
        made = self._agent.attach(stage.spaces.make(), "watcher", first)
        for network in others:
            body = {"sandbox": made.id, "endpoint": {"network": network}}
            self._agent.call("POST", f"/v1/networks/{network}/connect", body)
        return Look(made.space, made.resolver)


def _plug(host: Path, nobody: Path) -> None:
    """Give *host* a link on which all other hosts seem to be."""
    v4, v6 = _UNDERLAYS
    wire(host, nobody, _LINK, v4)
    run(["ip", "addr", "add", f"{v6[1]}/{v6.prefixlen}", "dev", _LINK, "nodad"], host)


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
