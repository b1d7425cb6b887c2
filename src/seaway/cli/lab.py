"""``seaway lab``: virtual hosts on this machine, to try things, to test and to measure.

Only the tables are here, which are read at every call; what the commands do
is in lab_commands.py, loaded when one of them is run.
"""

from __future__ import annotations

from seaway.cli.flags import Command, Flag, Group, Positional, Takes

TYPE_CHECKING = False  # a type checker takes it for True; typing itself is slow to import
if TYPE_CHECKING:
    from seaway.cli.parse import Parsed

_NAME = Flag("name", "", Takes.VALUE, "LAB", "Which lab", default="lab", completes="lab")
_HOSTS = Flag("hosts", "", Takes.VALUE, "N", "How many hosts: 1, or as many as there are")
_ALONE = Flag("no-cluster", "", help="Leave the hosts alone: make no cluster of them")
_ONLY = Flag("name", "", Takes.VALUE, "LAB", "Only this lab", completes="lab")
_FORMAT = Flag("format", "", Takes.VALUE, "FORMAT", "table, json, or fields such as {{.Machine}}")

_HOST = Positional("HOST", completes="lab-host")
_MACHINE = Positional("HOST", completes="lab-machine")
_ANY = Positional("HOST", optional=True, completes="lab-machine")
_OTHER = Positional("HOST2", optional=True, completes="lab-machine")

_TRY = """
seaway lab exec host1 seaway run -d -p 8080:80 nginx
seaway lab exec outside curl http://192.0.2.1:8080/
"""


def _on_host(name: str, summary: str) -> Command:
    return Command(name, summary, flags=[_NAME], positionals=[_HOST])


LAB = Group(
    "lab",
    "Virtual hosts on this machine, to try Seaway without touching its own network",
    [
        Command(
            "up",
            "Bring up what is missing of a lab: wire, hosts, their agents, one cluster of them if "
            "they are several, and a client, outside",
            flags=[_NAME, _HOSTS, _ALONE],
            example="seaway lab up --hosts 3",
        ),
        Command("ls", "List labs, their machines and agents", flags=[_ONLY, _FORMAT]),
        Command("down", "Remove a lab with its containers, agents and state", flags=[_NAME]),
        Command(
            "exec",
            "Run a command on a host of a lab, or on outside",
            flags=[_NAME],
            positionals=[_MACHINE, Positional("COMMAND", many=True)],
            example=_TRY,
            stops_at_first_positional=True,
        ),
        _on_host("start", "Start the agent of a host, and boot the host if it is off"),
        _on_host("kill", "Kill the agent of a host; its containers and their traffic go on"),
        _on_host("pause", "Freeze the agent of a host"),
        _on_host("resume", "Let a frozen agent go on"),
        _on_host("power-off", "Pull the plug of a host: only its state stays, as on a disk"),
        Command(
            "kill-store",
            "Kill the etcd of a host, and keep it from coming back until 'lab heal'",
            flags=[_NAME, Flag("once", "", help="Let the agent start it again")],
            positionals=[_HOST],
        ),
        Command(
            "cut",
            "Take a host off the wire, or part two hosts from each other",
            flags=[_NAME],
            positionals=[_MACHINE, _OTHER],
        ),
        Command(
            "heal",
            "Undo cuts: all of them, those of one host, or that between two; and kill-store",
            flags=[_NAME],
            positionals=[_ANY, _OTHER],
        ),
    ],
)


def run(command: str, parsed: Parsed) -> int:
    """Do what ``seaway lab COMMAND`` asks for; return the exit status.

    Raises:
        SeawayError: One line for the user.
    """
    from seaway.cli.lab_commands import COMMANDS  # noqa: PLC0415 - see above

    return COMMANDS[command](parsed)


def complete(kind: str) -> list[str]:
    """Names for shell completion: *kind* is lab, lab-host or lab-machine (of the default lab)."""
    from seaway.cli.lab_commands import names  # noqa: PLC0415 - see above

    return names(kind, _NAME.default or "")
