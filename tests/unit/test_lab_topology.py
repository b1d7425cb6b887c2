"""Names, addresses and folders of a lab."""

from ipaddress import IPv4Interface, IPv6Interface
from pathlib import Path

import pytest

from seaway.errors import InvalidSpec, NotFound
from seaway.lab.topology import Lab, count_hosts, is_lab_name, lab_of_namespace

LONGEST = Lab(name="a" * 16, hosts=99)


def test_hosts_are_numbered_and_outside_is_last():
    """A lab of two hosts has three machines on its wire."""
    machines = Lab(hosts=2).machines

    assert ["host1", "host2", "outside"] == [m.name for m in machines]
    assert [True, True, False] == [m.has_agent for m in machines]


def test_addresses_carry_the_number_of_the_host():
    """host12 is .12 and ::12; outside is .200 and ::200."""
    lab = Lab(hosts=12)

    assert IPv4Interface("192.0.2.12/24") == lab.host("host12").v4
    assert IPv6Interface("2001:db8:5ea::12/64") == lab.host("host12").v6
    assert IPv4Interface("192.0.2.200/24") == lab.machine("outside").v4
    assert IPv6Interface("2001:db8:5ea::200/64") == lab.machine("outside").v6


def test_no_two_machines_share_anything():
    """In the largest lab, addresses, MACs, namespaces and folders are all different."""
    machines = LONGEST.machines

    for field in ("v4", "v6", "mac", "netns", "state_dir", "run_dir"):
        assert len(machines) == len({getattr(m, field) for m in machines}), field


def test_labs_of_different_names_share_only_addresses():
    """Two labs have their own namespaces, MACs and folders, and may repeat addresses."""
    a, b = Lab(name="a").host("host1"), Lab(name="b").host("host1")

    assert a.v4 == b.v4
    assert not {a.netns, a.mac, a.state_dir, a.run_dir} & {b.netns, b.mac, b.state_dir, b.run_dir}


def test_folders_of_a_host():
    """State survives, sockets do not, and both are named after lab and host."""
    host = Lab(name="try").host("host1")

    assert Path("/run/netns/swlab-try-host1") == host.netns
    assert Path("/var/lib/seaway/lab/try/host1/podman") == host.podman_root
    assert Path("/run/seaway/lab/try/host1/seaway.sock") == host.socket


def test_the_longest_paths_are_short_enough():
    """Podman's run root stays within its 50 characters, sockets within sun_path's 107."""
    host = LONGEST.host("host99")

    assert len(str(host.run_dir / "podman")) <= 50
    assert len(str(host.socket)) <= 107


@pytest.mark.parametrize("name", ["", "A", "1a", "-a", "a-", "a/b", "a.b", "../x", "a" * 17, "a b"])
def test_odd_lab_names_are_refused(name):
    """A name that could leave its folder, or be read two ways, is no lab name."""
    assert not is_lab_name(name)
    with pytest.raises(InvalidSpec, match="1 to 16 of a-z"):
        Lab(name=name)


@pytest.mark.parametrize("hosts", [0, -1, 100])
def test_odd_numbers_of_hosts_are_refused(hosts):
    """A lab has at least one host and leaves room for outside."""
    with pytest.raises(InvalidSpec, match="1 to 99 hosts"):
        Lab(hosts=hosts)


@pytest.mark.parametrize("name", ["host0", "host3", "wire", "", "outside"])
def test_unknown_hosts_are_named_with_those_there_are(name):
    """The message lists the hosts; outside is a machine, not a host."""
    with pytest.raises(NotFound, match=r"it has host1, host2$"):
        Lab(hosts=2).host(name)


def test_outside_is_offered_where_any_machine_will_do():
    """The message about an unknown machine lists outside too."""
    with pytest.raises(NotFound, match=r"it has host1, outside$"):
        Lab().machine("host9")


@pytest.mark.parametrize("lab", [Lab(hosts=2), Lab(name="a-host1", hosts=2), LONGEST])
def test_namespaces_lead_back_to_their_lab(lab):
    """Whoever finds a namespace knows its lab, also when that is called like a host."""
    tails = [m.name for m in lab.machines]

    assert [(lab.name, tail) for tail in tails] == [
        lab_of_namespace(m.netns.name) for m in lab.machines
    ]
    assert (lab.name, "wire") == lab_of_namespace(lab.wire_netns.name)


@pytest.mark.parametrize(
    "name", ["swlab-lab", "swlab-lab-host0", "swlab--wire", "x-lab-host1", "web"]
)
def test_other_namespaces_belong_to_no_lab(name):
    """A name that no lab makes is nobody's."""
    assert lab_of_namespace(name) is None


def test_counting_hosts_takes_the_highest():
    """A lab whose first hosts have gone still has the later ones."""
    assert 12 == count_hosts(["outside", "host2", "host12", "wire", "hosts"])
    assert 0 == count_hosts(["outside"])


def test_what_to_type_names_the_lab_unless_it_is_the_usual_one():
    """Messages can be copied and run."""
    assert "seaway lab start host1" == Lab().host("host1").start_command
    assert "seaway lab start --name try host1" == Lab(name="try").host("host1").start_command
    assert "seaway lab up --name try" == Lab(name="try").machine("outside").start_command
