"""The tables of ``seaway cluster`` and ``seaway node``; cluster_commands.py and node_commands.py
have what they do."""

from __future__ import annotations

from seaway.cli.flags import Command, Flag, Group, Positional, Takes

VALUE, LIST = Takes.VALUE, Takes.LIST

_FORMAT = Flag("format", "", VALUE, "FORMAT", "table, json, or fields such as {{.Name}}")
_QUIET = Flag("quiet", "q", help="Only show names")
_ONLY_TOKEN = Flag("quiet", "q", help="Only print the token")
_ADVERTISE = Flag(
    *("advertise", "", LIST, "ADDRESS"),
    help="Address at which other hosts reach this one, one for each family the preferred one "
    "first; those on the way to the default gateway if not given",
)
_NODES = Positional("NODE", many=True, completes="node")

CLUSTER = Group(
    "cluster",
    "Many hosts: make a cluster, join it, leave it, look at it",
    [
        Command(
            "init",
            "Make a cluster with this host as its first; prints what others join with",
            flags=[
                _ADVERTISE,
                Flag(
                    *("stores", "", VALUE, "N", "How many hosts run etcd once there are so many"),
                    choices=["1", "3", "5"],
                    default="3",
                ),
                Flag(
                    *("port", "", VALUE, "PORT", "First of six ports in a row between hosts"),
                    default="7900",
                ),
                Flag(
                    *("lease", "", VALUE, "SECONDS", "A host silent for so long counts as dead"),
                    default="20",
                ),
                Flag(
                    "etcd", "", LIST, "URL", "Use this etcd, and run none; commas between several"
                ),
                Flag("etcd-ca", "", VALUE, "FILE", "Who signed that etcd's certificate (PEM)"),
                Flag("etcd-cert", "", VALUE, "FILE", "Certificate to show that etcd (PEM)"),
                Flag("etcd-key", "", VALUE, "FILE", "Its key (PEM)"),
                _ONLY_TOKEN,
            ],
            example="seaway cluster init\nseaway cluster init --advertise 192.0.2.1",
        ),
        Command(
            "join",
            "Join the cluster of the host at ADDRESS",
            flags=[
                Flag(
                    *("token", "", VALUE, "TOKEN"),
                    help="As 'seaway cluster token' prints it there; - reads it from the input; "
                    "that in $SEAWAY_TOKEN if not given",
                ),
                _ADVERTISE,
            ],
            positionals=[Positional("ADDRESS[:PORT]")],
            example="seaway cluster join --token SWY1-... 192.0.2.1",
        ),
        Command(
            "leave",
            "Leave the cluster; local networks and their containers stay as they are",
            flags=[Flag("force", "f", help="Although containers are on overlay networks here")],
        ),
        Command(
            "token",
            "Show what others join with, or make a new one and the old one void",
            flags=[_ONLY_TOKEN],
            positionals=[Positional("show|rotate", optional=True, choices=["show", "rotate"])],
            example="seaway cluster token\nseaway cluster token rotate",
        ),
        Command("status", "Show the cluster as this host sees it", flags=[_FORMAT]),
        Group(
            "keys",
            "Keys that traffic between hosts is encrypted with",
            [Command("rotate", "Give every host a new key; no packet is lost meanwhile")],
        ),
    ],
)

NODE = Group(
    "node",
    "The cluster's hosts: list, inspect, drain, remove",
    [
        Command("ls", "List hosts", flags=[_QUIET, _FORMAT], aliases=["list"]),
        Command(
            "inspect",
            "Show hosts in full, with the way from here to each of their networks",
            flags=[_FORMAT],
            positionals=[_NODES],
        ),
        Command(
            "drain",
            "Let hosts take no new containers on overlay networks; those they have stay",
            flags=[Flag("undo", "", help="Let them take new ones again")],
            positionals=[_NODES],
        ),
        Command(
            "rm",
            "Remove hosts that are gone for good: they are shut out at once",
            flags=[Flag("force", "f", help="Although it is alive")],
            positionals=[_NODES],
            aliases=["remove"],
        ),
    ],
)
