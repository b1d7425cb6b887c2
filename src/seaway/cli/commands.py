"""Every command, as tables.  What they do is in the ``*_commands`` modules, loaded when run."""

from __future__ import annotations

from seaway.cli.cluster import CLUSTER, NODE
from seaway.cli.flags import Command, Flag, Group, Positional, Takes
from seaway.cli.lab import LAB
from seaway.cli.podman_flags import PODMAN_RUN

VALUE, LIST = Takes.VALUE, Takes.LIST

_NETWORK = Positional("NETWORK", completes="network")
_CONTAINER = Positional("CONTAINER", completes="container")
_CONTAINERS = Positional("CONTAINER", many=True, completes="container")
_FORMAT = Flag("format", "", VALUE, "FORMAT", "table, json, or fields such as {{.Name}}")
_FILTER = Flag("filter", "f", LIST, "KEY=VALUE", "Only those that match")
_QUIET = Flag("quiet", "q", help="Only show names")

ENDPOINT_FLAGS = (
    Flag("ip", "", VALUE, "ADDRESS", "IPv4 address on the first network"),
    Flag("ip6", "", VALUE, "ADDRESS", "IPv6 address on the first network"),
    Flag("gw-priority", "", VALUE, "N", "Highest one has the default route (default 0)"),
)

_NETWORK_FLAGS = (
    Flag(
        *("network", "", LIST, "NETWORK"),
        help="Network to join: NAME, host, none, container:NAME, or name=N,alias=A,ip=I,ip6=I,"
        "mac-address=M,gw-priority=P; may be repeated",
        aliases=["net"],
        completes="network",
    ),
    Flag(
        *("network-alias", "", LIST, "NAME", "Another name on the first network"),
        aliases=["net-alias"],
    ),
    *ENDPOINT_FLAGS,
    Flag("mac-address", "", VALUE, "MAC", "MAC address on the first network"),
    Flag(
        *("publish", "p", LIST, "PORT"),
        help="Publish a port: [[IP:]HOST:]CONTAINER[/PROTOCOL][,from=CIDR[,CIDR]]",
    ),
    Flag("publish-all", "P", help="Publish every exposed port on a free host port"),
    Flag("expose", "", LIST, "PORT", "A port that -P publishes too"),
    Flag("dns", "", LIST, "ADDRESS", "Ask this server for names that are not Seaway's"),
    Flag("dns-search", "", LIST, "DOMAIN", "Search domain"),
    Flag("dns-option", "", LIST, "OPTION", "Resolver option", aliases=["dns-opt"]),
)

NETWORK = Group(
    "network",
    "Networks: create, list, inspect, remove, connect, disconnect",
    [
        Command(
            "create",
            "Create a network",
            flags=[
                Flag(
                    *("driver", "d", VALUE, "DRIVER"),
                    help="bridge: on this host; overlay: on every host of the cluster; macvlan: on "
                    "the host's own wire",
                    default="bridge",
                ),
                Flag("subnet", "", LIST, "CIDR", "Subnet; one for IPv4, one for IPv6"),
                Flag("gateway", "", LIST, "ADDRESS", "Gateway of a subnet"),
                Flag("ip-range", "", LIST, "CIDR", "Hand out addresses from this part only"),
                Flag("aux-address", "", LIST, "NAME=ADDRESS", "Never hand out this address"),
                Flag("internal", "", help="No way out, and none in"),
                Flag("ipv4", "", help="Give it an IPv4 subnet", default="true"),
                Flag("ipv6", "", help="Give it an IPv6 subnet", default="true"),
                Flag(
                    "opt",
                    "o",
                    LIST,
                    "KEY=VALUE",
                    "mtu, masquerade; encrypted, carrier; parent, mode",
                ),
                Flag("label", "", LIST, "KEY=VALUE", "Set a label"),
                Flag("attachable", "", help="Accepted for Docker's sake: all of them are"),
            ],
            positionals=[Positional("NAME")],
            example="seaway network create --subnet 10.10.0.0/24 --gateway 10.10.0.1 backend\n"
            "seaway network create -d overlay everywhere\n"
            "seaway network create -d overlay -o encrypted=false -o carrier=vxlan fast",
        ),
        Command("ls", "List networks", flags=[_FILTER, _QUIET, _FORMAT], aliases=["list"]),
        Command(
            "inspect",
            "Show networks in full, with who is on them",
            flags=[_FORMAT],
            positionals=[Positional("NETWORK", many=True, completes="network")],
        ),
        Command(
            "rm",
            "Remove networks",
            flags=[Flag("force", "f", help="One that is not there is no error")],
            positionals=[Positional("NETWORK", many=True, completes="network")],
            aliases=["remove"],
        ),
        Command(
            "connect",
            "Attach a container to one more network, while it runs",
            flags=[
                Flag("alias", "", LIST, "NAME", "Another name on this network"),
                Flag("ip", "", VALUE, "ADDRESS", "IPv4 address"),
                Flag("ip6", "", VALUE, "ADDRESS", "IPv6 address"),
                Flag("mac-address", "", VALUE, "MAC", "MAC address"),
                Flag("gw-priority", "", VALUE, "N", "Highest one has the default route"),
            ],
            positionals=[_NETWORK, _CONTAINER],
        ),
        Command(
            "disconnect",
            "Detach a container from a network, while it runs",
            flags=[Flag("force", "f", help="Not being connected is no error")],
            positionals=[_NETWORK, _CONTAINER],
        ),
        Command(
            "prune",
            "Remove every network that nobody is on",
            flags=[Flag("force", "f", help="Do not ask")],
        ),
    ],
)

RUN = Command(
    "run",
    "Run a command in a new container",
    usage="[OPTIONS] IMAGE [COMMAND...]",
    flags=[
        *_NETWORK_FLAGS,
        Flag("name", "", VALUE, "NAME", "Name of the container, also in DNS"),
        Flag("hostname", "h", VALUE, "NAME", "Host name inside, also in DNS"),
        Flag("add-host", "", LIST, "NAME:ADDRESS", "Entry for /etc/hosts; host-gateway works"),
        Flag("label", "l", LIST, "KEY=VALUE", "Set a label"),
        Flag("sysctl", "", LIST, "KEY=VALUE", "Kernel setting inside, such as net.*"),
        Flag("detach", "d", help="Run in the background and print the container's id"),
        Flag("rm", "", help="Remove the container when it ends"),
        Flag("cidfile", "", VALUE, "FILE", "Write the container's id here"),
        Flag("pidfile", "", VALUE, "FILE", "Write the process's number here"),
    ],
    positionals=[
        Positional("IMAGE", completes="image"),
        Positional("COMMAND", many=True, optional=True),
    ],
    example="seaway run -d -p 8080:80 --name my-web-server nginx",
    stops_at_first_positional=True,
    passes_unknown=PODMAN_RUN,
)

EXEC = Command(
    "exec",
    "Run a command in a running container",
    flags=[
        Flag("detach", "d", help="Do not wait for it"),
        Flag("env", "e", LIST, "NAME=VALUE", "Set a variable"),
        Flag("env-file", "", LIST, "FILE", "Read variables from a file"),
        Flag("interactive", "i", help="Keep standard input open"),
        Flag("privileged", "", help="Give it every right"),
        Flag("tty", "t", help="Give it a terminal"),
        Flag("user", "u", VALUE, "USER", "Run as this user"),
        Flag("workdir", "w", VALUE, "FOLDER", "Start in this folder"),
    ],
    positionals=[_CONTAINER, Positional("COMMAND", many=True)],
    stops_at_first_positional=True,
)

LOGS = Command(
    "logs",
    "Show what a container has printed",
    flags=[
        Flag("follow", "f", help="Go on as it prints more"),
        Flag("since", "", VALUE, "TIME", "From this moment on"),
        Flag("tail", "n", VALUE, "N", "Only the last N lines"),
        Flag("timestamps", "t", help="With the time of each line"),
        Flag("until", "", VALUE, "TIME", "Up to this moment"),
    ],
    positionals=[_CONTAINER],
)

_TIME = Flag("time", "t", VALUE, "SECONDS", "Wait this long before killing it", default="10")

CONTAINERS = (
    RUN,
    Command(
        "ps",
        "List containers and everything else that is attached",
        flags=[Flag("all", "a", help="Stopped ones too"), _FILTER, _QUIET, _FORMAT],
    ),
    Command("stop", "Stop containers", flags=[_TIME], positionals=[_CONTAINERS]),
    Command("start", "Start stopped containers", positionals=[_CONTAINERS]),
    Command("restart", "Stop and start containers", flags=[_TIME], positionals=[_CONTAINERS]),
    Command(
        "rm",
        "Remove containers",
        flags=[
            Flag("force", "f", help="Running ones too"),
            Flag("volumes", "v", help="With their unnamed volumes"),
        ],
        positionals=[_CONTAINERS],
    ),
    LOGS,
    EXEC,
    Command(
        "port",
        "Show where a container's ports are published",
        positionals=[_CONTAINER, Positional("PORT", optional=True)],
    ),
    Command(
        "inspect",
        "Show containers or networks in full",
        flags=[_FORMAT],
        positionals=[Positional("NAME", many=True, completes="container")],
    ),
)

ATTACHED = (
    Command(
        "attach",
        "Attach a process or network namespace: a service, a VM, anything",
        flags=[
            Flag("name", "", VALUE, "NAME", "What to call it, also in DNS"),
            Flag("hostname", "", VALUE, "NAME", "Another DNS name"),
            Flag("label", "l", LIST, "KEY=VALUE", "Set a label"),
            Flag("sysctl", "", LIST, "NET.KEY=VALUE", "Kernel setting inside the namespace"),
            *_NETWORK_FLAGS,
        ],
        positionals=[Positional("PID|PATH")],
        example="seaway attach --name db --network backend /run/netns/vm1\n"
        "seaway attach --network backend $(systemctl show -p MainPID --value db.service)",
    ),
    Command(
        "detach",
        "Detach what was attached",
        positionals=[Positional("NAME", many=True, completes="container")],
    ),
)

HOST = (
    Command("status", "Say what is applied, what failed and why", flags=[_FORMAT]),
    Command("plan", "Show what would change in the kernel, and why", flags=[_FORMAT]),
    Command(
        "events",
        "Show what happened",
        flags=[
            Flag("follow", "f", help="Go on as more happens", default="false"),
            Flag("since", "", VALUE, "SECONDS", "Only the last so many seconds"),
            _FORMAT,
        ],
    ),
    Command(
        "doctor",
        "Look for what keeps containers from talking, with the cure",
        flags=[_FORMAT, Flag("all", "a", help="Show what is well, too")],
    ),
    Command(
        "agent",
        "Run the agent: one on each host, as root",
        flags=[
            Flag("state-dir", "", VALUE, "FOLDER", "What must survive", default="/var/lib/seaway"),
            Flag("run-dir", "", VALUE, "FOLDER", "What need not", default="/run/seaway"),
            Flag("podman-root", "", VALUE, "FOLDER", "A Podman store of its own"),
            Flag(
                *("image-store", "", VALUE, "FOLDER", "Images to use beside Podman's own, if any"),
                default="/var/lib/seaway/images",
            ),
            Flag("node-name", "", VALUE, "NAME", "Of this host in a cluster, if not its host name"),
        ],
    ),
    Command(
        "cleanup",
        "Remove everything of Seaway's from the kernel; needs neither agent nor state",
        flags=[Flag("run-dir", "", VALUE, "FOLDER", "Where the agent ran, if not /run/seaway")],
    ),
    Command(
        "completion",
        "Print the script that completes command lines",
        positionals=[Positional("SHELL", choices=["bash", "zsh", "fish"])],
        example="seaway completion bash > /usr/share/bash-completion/completions/seaway",
    ),
    Command("version", "Print the version"),
    Command(
        *("__complete", "Offer words for the shell"),
        positionals=[Positional("WORDS", many=True, optional=True)],
        stops_at_first_positional=True,
        hidden=True,
    ),
)

TREE = Group(
    "seaway",
    "Gives containers their network",
    [NETWORK, *CONTAINERS, *ATTACHED, CLUSTER, NODE, *HOST, LAB],
    flags=[Flag("version", "", help="Print the version")],
)
