"""What does the path between containers on two hosts cost?

Round trips, connections of one byte each way, and one stream, each pair of
hosts on a cable of its own.  Everything is a ratio to what goes from host to
host on the same cable, in the same round.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench.engines.by_hand import Ends
from bench.engines.swarm import NETWORK
from bench.programs import Failed
from bench.questions.path import name
from bench.samples import Probe, say
from bench.stage import Stage
from seaway.errors import SeawayError

ACROSS = "across hosts"
ROUND_TRIPS, CONNECTIONS, STREAM = "round trips", "connections", "one stream"
KINDS = (ROUND_TRIPS, CONNECTIONS, STREAM)

BARE, SWARM_HOSTS, SEAWAY_HOSTS = "bare hosts", "swarm's hosts", "seaway's hosts"
BRIDGED, ROUTED = "VXLAN by hand, bridged", "VXLAN by hand, routed"
SWARM = "docker swarm"
WIREGUARD = "wireguard-go by hand"
DIRECT, VXLAN, ENCRYPTED = "seaway, direct", "seaway, vxlan", "seaway, encrypted"

OPTIONS: dict[str, dict[str, str]] = {
    DIRECT: {"encrypted": "false", "carrier": "direct"},
    VXLAN: {"encrypted": "false", "carrier": "vxlan"},
    ENCRYPTED: {},
}
"""Of the networks that are measured: what each needs to be carried as its name says."""

_PORT = 7001
_HOST_PORT = 7101
_TRY_SECONDS = 0.05
_MOST_ROUNDS, _MOST_SECONDS = 5, 0.7  # more say no more, and there are thirty probes


@dataclass(frozen=True, slots=True)
class _Way:
    who: str
    ends: Ends
    port: int = _PORT


def measure(stage: Stage) -> None:
    """Measure every way in rounds."""
    ways: list[_Way] = []
    for find in (_by_hand, _wireguard, _swarm, _seaway):
        try:
            ways += _tried(stage, find(stage))
        except (Failed, SeawayError, OSError) as err:
            say(f"left out, {find.__name__.strip('_')}: {err}")
    probes = [_probe(stage, way, kind) for way in ways for kind in KINDS]
    stage.take(probes, rounds=min(stage.sizes.rounds, _MOST_ROUNDS))


def _tried(stage: Stage, ways: list[_Way]) -> list[_Way]:
    """Send something every way, so that no sample has the first packet."""
    for way in ways:
        stage.load.serve(way.ends.server, way.port)
        stage.load.connections(way.ends.client, way.ends.address, way.port, _TRY_SECONDS)
    return ways


def _probe(stage: Stage, way: _Way, kind: str) -> Probe:
    def take() -> float:
        seconds = min(stage.sizes.seconds, _MOST_SECONDS)
        where = (way.ends.client, way.ends.address, way.port, seconds)
        match kind:
            case "round trips":
                return stage.load.round_trips(*where).per_second
            case "connections":
                return stage.load.connections(*where).per_second
        return stage.load.flow(*where)

    return Probe(name(ACROSS, kind), way.who, "Gbit/s" if kind == STREAM else "/s", take)


def _by_hand(stage: Stage) -> list[_Way]:
    by_hand = stage.far.by_hand
    return [
        _Way(BARE, by_hand.bare),
        _Way(BRIDGED, by_hand.bridged(stage.spaces)),
        _Way(ROUTED, by_hand.routed(stage.spaces)),
    ]


def _wireguard(stage: Stage) -> list[_Way]:
    return [_Way(WIREGUARD, stage.far.wireguard)]


def _swarm(stage: Stage) -> list[_Way]:
    swarm = stage.far.swarm
    asker = swarm.first.start("--network", NETWORK)
    server = swarm.second.start("--network", NETWORK)
    address = swarm.second.address(server, NETWORK)
    ends = Ends(swarm.first.space(asker), swarm.second.space(server), address)
    return [_Way(SWARM_HOSTS, swarm.hosts, _HOST_PORT), _Way(SWARM, ends)]


def _seaway(stage: Stage) -> list[_Way]:
    pair = stage.far.pair
    ways = [_Way(SEAWAY_HOSTS, pair.hosts, _HOST_PORT)]
    for number, (who, options) in enumerate(OPTIONS.items()):
        network = f"far{number}"
        pair.network(network, options)
        client, server = stage.spaces.make(), stage.spaces.make()
        pair.first.attach(client, network=network)
        made = pair.second.attach(server, network=network)
        ways.append(_Way(who, Ends(client, server, made.v4)))
    return ways
