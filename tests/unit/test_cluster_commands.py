"""``seaway cluster`` and ``seaway node``, and what of a cluster other commands show, with a
stand-in for the agent."""

from __future__ import annotations

import io
import json
import re
import time

import pytest

from seaway.cli import client, cluster_commands, host_commands, network_commands, node_commands
from seaway.cli.main import FAILED, USAGE, main
from seaway.errors import Conflict

TOKEN = "SWY1-" + "a" * 64 + "-" + "b" * 32
JOIN = f"seaway cluster join --token {TOKEN} 192.0.2.1"
DEFAULTS = {
    "advertise": [],
    "stores": 3,
    "port": 7900,
    "lease": 20,
    "etcd": [],
    "etcd_ca": "",
    "etcd_cert": "",
    "etcd_key": "",
}


def cluster(**changes):
    """What GET /v1/cluster says of three healthy hosts."""
    stores = [
        {
            "host": f"host{n}",
            "address": f"192.0.2.{n}",
            "leader": n == 1,
            "healthy": True,
            "learner": False,
            "size": 1_250_000,
        }
        for n in (1, 2, 3)
    ]
    return {
        "cluster": "0123456789ab",
        "host": "host1",
        "number": 1,
        "online": True,
        "since": 0.0,
        "stores": stores,
        "hosts": {"total": 3, "alive": 3},
        "lease": 20,
        "ports": {"join": 7900},
        "generation": 0,
        "certificate_expires": time.time() + 20 * 3600,
        "encryption": "wireguard-go",
        "networks": {"wireguard": 2, "vxlan": 1, "direct": 0},
        "problems": [],
    } | changes


def node(name, **changes):
    """What GET /v1/nodes says of one host."""
    return {
        "name": name,
        "id": f"{name:0>12}",
        "number": int(name.removeprefix("host")),
        "addresses": ["192.0.2.1", "2001:db8:5ea::1"],
        "status": "ready",
        "store": "yes",
        "wireguard": "cHVibGljIGtleQ==",
        "containers": 4,
        "version": "0.1.0",
        "self": False,
        "joined": 0.0,
        "paths": [],
    } | changes


def network(name, driver):
    """What GET /v1/networks says of one."""
    return {
        "name": name,
        "id": name,
        "driver": driver,
        "subnets": [],
        "internal": False,
        "labels": {},
        "containers": {},
    }


class Agent:
    """Answers requests out of a table, and remembers them."""

    def __init__(self):
        self.answers = {}
        self.asked = []

    def __call__(self, *_place, **_how):
        """Stand in for the class Client."""
        return self

    def request(self, method, path, body=None):
        """Answer; what is in the table may be an error."""
        self.asked.append((method, path, body))
        answer = self.answers[f"{method} {path}"]
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def agent(monkeypatch):
    """An agent for every command of this module."""
    agent = Agent()
    for module in (cluster_commands, node_commands, network_commands, host_commands):
        monkeypatch.setattr(module, "Client", agent)
    return agent


@pytest.fixture
def initiable(agent):
    """An agent that makes clusters."""
    agent.answers["POST /v1/cluster"] = {
        "cluster": "0123456789ab",
        "host": "host1",
        "token": TOKEN,
        "join": JOIN,
    }
    return agent


def test_init_asks_with_the_defaults(initiable, capsys):
    """The output has the ports to open and a command that can be pasted as it is."""
    assert 0 == main(["cluster", "init"])

    assert [("POST", "/v1/cluster", DEFAULTS)] == initiable.asked
    out = capsys.readouterr().out
    assert "0123456789ab" in out
    assert "7900-7902/tcp and 7903-7905/udp" in out
    assert f"\n  {JOIN}\n" in out


def test_init_reads_what_it_is_told(initiable, tmp_path, capsys):
    """Lists may have commas; certificates are sent, not their paths."""
    pem = tmp_path / "some.pem"
    pem.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    words = ["--advertise", "192.0.2.1,2001:db8::1", "--stores", "5", "--port", "8000", "-q"]
    words += ["--lease", "5", "--etcd", "https://a:2379,https://b:2379", "--etcd", "https://c:2379"]
    words += [f"--etcd-{what}={pem}" for what in ("ca", "cert", "key")]

    assert 0 == main(["cluster", "init", *words])

    assert (
        DEFAULTS
        | {
            "advertise": ["192.0.2.1", "2001:db8::1"],
            "stores": 5,
            "port": 8000,
            "lease": 5,
            "etcd": ["https://a:2379", "https://b:2379", "https://c:2379"],
            **{f"etcd_{what}": pem.read_text() for what in ("ca", "cert", "key")},
        }
        == initiable.asked[0][2]
    )
    assert f"{TOKEN}\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["init", "--stores", "2"], USAGE, "--stores"),
        (["init", "--port", "x"], USAGE, "--port 'x' is not a whole number"),
        (["init", "--lease", "-1"], USAGE, "--lease '-1' is not a whole number"),
        (["init", "--etcd-ca", "/nonexistent"], FAILED, "No such file"),
        (["init", "--etcd-ca", "/dev/null"], FAILED, "no PEM file"),
        (["init", "192.0.2.1"], USAGE, "192.0.2.1"),
        (["join", "192.0.2.1"], USAGE, "--token is missing"),
        (["join", "--token", TOKEN], USAGE, "ADDRESS"),
        (["join", "--token", TOKEN, "192.0.2.1:99999"], FAILED, "no port from 1 to 65535"),
        (["token", "show", "rotate"], USAGE, "rotate"),
        (["token", "burn"], USAGE, "burn"),
        (["keys"], USAGE, ""),
        (["leave", "now"], USAGE, "now"),
    ],
)
def test_wrong_usage_is_told_in_one_line(initiable, capsys, words, status, said):
    """Before anything is asked of the agent."""
    assert status == main(["cluster", *words])

    err = capsys.readouterr().err
    assert [] == initiable.asked
    assert said in err
    assert err.count("\n") <= 1


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [("192.0.2.1:8000", "192.0.2.1", 8000), ("[2001:db8::1]:8000", "2001:db8::1", 8000)],
)
def test_an_address_may_have_a_port(agent, text, address, port):
    """An IPv6 address is written in brackets then."""
    agent.answers["POST /v1/cluster/join"] = {"cluster": "c", "host": "h", "number": 2, "hosts": 2}

    assert 0 == main(["cluster", "join", "--token", TOKEN, text])
    assert (address, port) == (agent.asked[0][2]["address"], agent.asked[0][2]["port"])


@pytest.mark.parametrize(
    ("flags", "variable", "typed", "taken"),
    [
        (["--token", "-"], "", f"{TOKEN}\n", f"{TOKEN}\n"),
        ([], TOKEN, "", TOKEN),
        (["--token", "SWY1-x"], TOKEN, "", "SWY1-x"),
    ],
)
def test_a_token_need_not_be_on_the_command_line(agent, monkeypatch, flags, variable, typed, taken):
    """It may be in the input or in the environment; what is on the command line comes first."""
    agent.answers["POST /v1/cluster/join"] = {"cluster": "c", "host": "h", "number": 2, "hosts": 2}
    monkeypatch.setenv("SEAWAY_TOKEN", variable)
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))

    assert 0 == main(["cluster", "join", *flags, "192.0.2.1"])
    assert taken == agent.asked[0][2]["token"]


def test_a_token_that_is_typed_is_not_shown(agent, monkeypatch):
    """A terminal is asked for it without an echo."""
    agent.answers["POST /v1/cluster/join"] = {"cluster": "c", "host": "h", "number": 2, "hosts": 2}
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda _prompt: TOKEN)

    assert 0 == main(["cluster", "join", "--token", "-", "192.0.2.1"])
    assert TOKEN == agent.asked[0][2]["token"]


@pytest.mark.parametrize("flags", [[], ["--token", "-"], ["--token="]])
def test_a_token_that_is_given_nowhere(agent, monkeypatch, capsys, flags):
    """One line says where to get it; nothing is asked of the agent."""
    monkeypatch.delenv("SEAWAY_TOKEN", raising=False)
    monkeypatch.setattr("sys.stdin", io.StringIO(""))

    assert USAGE == main(["cluster", "join", *flags, "192.0.2.1"])
    assert "--token is missing" in capsys.readouterr().err
    assert [] == agent.asked


def test_joining(agent, capsys):
    """Says who we are and how many there are now."""
    agent.answers["POST /v1/cluster/join"] = {
        "cluster": "0123456789ab",
        "host": "host2",
        "number": 2,
        "hosts": 2,
    }

    assert 0 == main(["cluster", "join", "--token", TOKEN, "--advertise=192.0.2.2", "192.0.2.1"])

    body = {"token": TOKEN, "address": "192.0.2.1", "port": 7900, "advertise": ["192.0.2.2"]}
    assert [("POST", "/v1/cluster/join", body)] == agent.asked
    assert "host2 has joined cluster 0123456789ab as number 2: 2 hosts now." in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("force", [True, False])
def test_leaving(agent, force, capsys):
    """--force is passed on."""
    agent.answers["POST /v1/cluster/leave"] = {"cluster": "0123456789ab"}

    assert 0 == main(["cluster", "leave", *(["--force"] if force else [])])

    assert [("POST", "/v1/cluster/leave", {"force": force})] == agent.asked
    assert "0123456789ab" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        ([], ("GET", "/v1/cluster/token", None)),
        (["show"], ("GET", "/v1/cluster/token", None)),
        (["rotate"], ("POST", "/v1/cluster/token/rotate", None)),
    ],
)
def test_the_token(agent, capsys, words, asked):
    """Shown with the command to paste, or alone for scripts; rotated only when told so."""
    agent.answers[" ".join(asked[:2])] = {"token": TOKEN, "join": JOIN}

    assert 0 == main(["cluster", "token", *words])
    assert f"\n  {JOIN}\n" in capsys.readouterr().out
    assert 0 == main(["cluster", "token", "--quiet", *words])
    assert f"{TOKEN}\n" == capsys.readouterr().out
    assert [asked] * 2 == agent.asked


def test_rotating_keys(agent, capsys):
    """Says which generation is on its way."""
    agent.answers["POST /v1/cluster/keys/rotate"] = {"generation": 1}

    assert 0 == main(["cluster", "keys", "rotate"])
    assert "generation 1" in capsys.readouterr().out


def test_the_state_of_a_cluster(agent, capsys):
    """Facts, then a table of stores; nothing is wrong."""
    agent.answers["GET /v1/cluster"] = cluster()

    assert 0 == main(["cluster", "status"])

    out = capsys.readouterr().out
    assert "3 of 3 hosts alive" in out
    assert "host1, number 1, online" in out
    assert "wireguard-go, keys of generation 0" in out
    assert "expires in 20 h" in out
    rows = [re.split(r"  +", line) for line in out.splitlines()[-4:]]
    assert ["STORE", "ADDRESS", "LEADER", "HEALTHY", "DB SIZE"] == rows[0]
    assert ["host1", "192.0.2.1", "yes", "yes", "1.2 MB"] == rows[1]
    assert ["host2", "192.0.2.2", "-", "yes", "1.2 MB"] == rows[2]


def test_a_cluster_with_problems(agent, capsys):
    """Each has its line, and the exit status is 1."""
    ill = cluster(online=False, since=time.time() - 600, encryption="")
    ill["stores"][1] |= {"healthy": False, "size": 0}
    ill["stores"][2]["learner"] = True
    ill["problems"] = [{"object": "etcd", "error": "no store answers"}]
    agent.answers["GET /v1/cluster"] = ill

    assert FAILED == main(["cluster", "status"])

    out = capsys.readouterr().out
    assert "Problem      etcd: no store answers\n" in out
    assert "offline for 10 min" in out
    assert "none: no encrypted networks" in out
    assert re.search(r"host2 +192.0.2.2 +- +no +-\n", out)
    assert re.search(r"host3 +192.0.2.3 +- +joining", out)


def test_a_host_in_no_cluster(agent, capsys):
    """One line says how to get into one; programs get what the agent says."""
    agent.answers["GET /v1/cluster"] = cluster(cluster="", stores=[])

    assert FAILED == main(["cluster", "status"])
    assert "seaway cluster init" in capsys.readouterr().err
    assert FAILED == main(["cluster", "status", "--format", "json"])
    assert "" == json.loads(capsys.readouterr().out)["cluster"]


def test_what_the_agent_refuses(agent, capsys):
    """Its one line, and exit status 1."""
    agent.answers["POST /v1/cluster/leave"] = Conflict("web is on overlay network x: use --force")

    assert FAILED == main(["cluster", "leave"])
    assert "seaway: web is on overlay network x: use --force\n" == capsys.readouterr().err


def test_listing_hosts(agent, capsys):
    """A star marks this one; names alone and templates have none."""
    agent.answers["GET /v1/nodes"] = [
        node("host1", self=True, store="leader"),
        node("host2", store="", wireguard="", status="drained"),
    ]

    assert 0 == main(["node", "ls"])
    head, first, second = (re.split(r"  +", x) for x in capsys.readouterr().out.splitlines())
    assert [
        "NAME",
        "ADDRESS",
        "STATUS",
        "STORE",
        "WIREGUARD",
        "NUMBER",
        "CONTAINERS",
        "VERSION",
    ] == head
    assert ["host1 *", "192.0.2.1, 2001:db8:5ea::1", "ready", "leader", "yes", "1"] == first[:6]
    assert ["host2", "192.0.2.1, 2001:db8:5ea::1", "drained", "-", "-", "2"] == second[:6]
    assert 0 == main(["node", "ls", "-q"])
    assert "host1\nhost2\n" == capsys.readouterr().out
    assert 0 == main(["node", "ls", "--format", "{{.Name}} {{.ID}} {{.Self}}"])
    assert "host1 0000000host1 true\n" in capsys.readouterr().out


def test_inspecting_hosts(agent, capsys):
    """All that the agent says, as an array."""
    agent.answers["GET /v1/nodes/host1"] = node("host1")
    agent.answers["GET /v1/nodes/host2"] = node("host2")

    assert 0 == main(["node", "inspect", "host1", "host2"])
    assert [node("host1"), node("host2")] == json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["drain", "host2"], ("POST", "/v1/nodes/host2/drain", {"undo": False})),
        (["drain", "--undo", "host2"], ("POST", "/v1/nodes/host2/drain", {"undo": True})),
        (["rm", "host2"], ("DELETE", "/v1/nodes/host2", None)),
        (["rm", "--force", "host2"], ("DELETE", "/v1/nodes/host2?force=true", None)),
    ],
)
def test_changing_hosts(agent, capsys, words, asked):
    """Each is named once it is done."""
    agent.answers[" ".join(asked[:2])] = {"note": ""}

    assert 0 == main(["node", *words])
    assert [asked] == agent.asked
    assert ("host2\n", "") == capsys.readouterr()


def test_what_is_left_to_do_after_removing_a_host(agent, capsys):
    """Is told beside its name, for readers and not for scripts."""
    agent.answers["DELETE /v1/nodes/host2"] = {"note": "change its credentials"}

    assert 0 == main(["node", "rm", "host2"])
    assert ("host2\n", "seaway: change its credentials\n") == capsys.readouterr()


def test_networks_have_a_scope(agent, capsys):
    """Overlay networks are the cluster's, the others this host's; filters know it."""
    agent.answers["GET /v1/networks"] = [network("a", "bridge"), network("b", "overlay")]

    assert 0 == main(["network", "ls"])
    out = capsys.readouterr().out
    assert re.search(r"^NAME +DRIVER +SCOPE ", out)
    assert re.search(r"^a +bridge +local", out, re.MULTILINE)
    assert re.search(r"^b +overlay +cluster", out, re.MULTILINE)
    assert 0 == main(["network", "ls", "-q", "-f", "scope=cluster"])
    assert "b\n" == capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--opt", "encrypted"], {"encrypted": "true"}),
        (
            ["-o", "encrypted=false", "-o", "carrier=vxlan"],
            {"encrypted": "false", "carrier": "vxlan"},
        ),
        (["--attachable"], {}),
    ],
)
def test_creating_an_overlay_network(agent, words, options):
    """Docker's flags are taken, also its --opt encrypted without a value."""
    agent.answers["POST /v1/networks"] = {"name": "everywhere"}

    assert 0 == main(["network", "create", "-d", "overlay", *words, "everywhere"])
    body = agent.asked[0][2]
    assert ("overlay", options) == (body["driver"], body["options"])


def status(**more):
    """What GET /v1/status says."""
    return {
        "version": "0.1.0",
        "healthy": True,
        "problems": [],
        "uptime": 1.0,
        "objects": {},
        "repairs": 0,
        "drops": {},
    } | more


def test_the_cluster_at_a_glance(agent, capsys):
    """``seaway status`` has a few lines about it, if there is one."""
    agent.answers["GET /v1/status"] = status()
    assert 0 == main(["status"])
    assert "Cluster" not in capsys.readouterr().out

    agent.answers["GET /v1/status"] = status(cluster=cluster(host="host2", number=2))
    assert 0 == main(["status"])
    out = capsys.readouterr().out
    assert "Cluster   0123456789ab, here host2, number 2\n" in out
    assert "Hosts     3 of 3 alive\n" in out
    assert "Stores    3 of 3 healthy, online\n" in out
    assert "Secrecy   wireguard-go\n" in out
    assert "Carried   2 networks by wireguard, 1 network by vxlan\n" in out


def test_an_etcd_of_somebody_else_s(agent, capsys):
    """No host runs one; both commands say so."""
    agent.answers["GET /v1/status"] = status(cluster=cluster(stores=[]))
    agent.answers["GET /v1/cluster"] = cluster(stores=[])

    assert 0 == main(["status"])
    assert "Stores    on no host of the cluster, online\n" in capsys.readouterr().out
    assert 0 == main(["cluster", "status"])
    assert capsys.readouterr().out.endswith("\n\nNo host of the cluster runs etcd.\n")


def test_names_of_hosts_are_completed(agent, capsys):
    """Those that the agent knows."""
    agent.answers["GET /v1/nodes"] = [node("host1"), node("host2")]

    assert 0 == main(["__complete", "--", "node", "drain", "host1", ""])
    assert "host2\n" == capsys.readouterr().out


def test_a_name_is_escaped_in_a_path(agent):
    """Whatever a user types is one segment of it."""
    agent.answers[f"GET /v1/nodes/{client.segment('a/b')}"] = node("host1")

    assert 0 == main(["node", "inspect", "a/b"])
