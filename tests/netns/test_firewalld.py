"""Our links in a zone of a real firewalld, which has a namespace and a D-Bus of its own."""

from __future__ import annotations

import pytest

from seaway.agent.doctor import diagnose
from seaway.agent.findings import Subject
from seaway.kernel import firewalld, probe
from seaway.kernel.netns import inside
from tests.support import neighbours
from tests.support.netns import namespaces

LINKS = "swv+"


@pytest.fixture(scope="module")
def space():
    with namespaces("host") as (made,):
        yield made


@pytest.fixture(scope="module")
def running(space):
    with neighbours.firewalld(space) as it, it.running():
        yield it


@pytest.fixture
def client(running, monkeypatch):
    """firewall-cmd; at the end our links are in no zone."""
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    yield running
    running.forget()


@pytest.fixture
def here(space):
    with inside(str(space.path)):
        yield


def complaints():
    return [f for f in diagnose(probe.gather()) if f.subject is Subject.FIREWALL and f.cure]


def test_links_go_into_the_trusted_zone_once(client, here):
    """One command at run time puts them there; the daemon's own settings stay as they are."""
    assert "" == firewalld.zone()

    assert (f"firewall-cmd --zone=trusted --add-interface={LINKS}",) == firewalld.ensure()
    assert () == firewalld.ensure()
    assert "trusted" == firewalld.zone() == client(f"--get-zone-of-interface={LINKS}")
    assert "" == client("--permanent", "--zone=trusted", "--list-interfaces")


def test_a_reload_takes_them_out(client, here):
    """After a reload they have to be put there again."""
    firewalld.ensure()
    client("--reload")

    assert "" == firewalld.zone()
    assert 1 == len(firewalld.ensure())


def test_a_zone_of_the_administrator_stays(client, here):
    """Links that are in another zone already are left there, and the doctor says what follows."""
    client("--zone=public", f"--add-interface={LINKS}")

    assert () == firewalld.ensure() == firewalld.remove()
    assert "public" == firewalld.zone()
    [finding] = complaints()
    assert "zone public, which rejects" in finding.what


def test_cleanup_takes_back_what_the_agent_did(client, here):
    """The links leave the zone, unless they are there for good."""
    firewalld.ensure()

    assert (f"firewall-cmd --zone=trusted --remove-interface={LINKS}",) == firewalld.remove()
    assert "" == firewalld.zone()
    assert () == firewalld.remove()

    client("--permanent", "--zone=trusted", f"--add-interface={LINKS}")
    client("--reload")
    assert () == firewalld.remove()
    assert "trusted" == firewalld.zone()


def test_the_doctors_cure(client, here):
    """The doctor complains until its cure has been typed, or the agent has done its work."""
    [finding] = complaints()
    assert "firewalld rejects" in finding.what
    firewalld.ensure()
    assert [] == complaints()
    firewalld.remove()

    client.shell(finding.cure)
    assert [] == complaints()


def test_a_machine_without_firewalld(monkeypatch, tmp_path):
    """Nothing to do, and nothing to fail at."""
    with namespaces("plain") as (plain,), inside(str(plain.path)):
        assert None is firewalld.zone()
        assert () == firewalld.ensure() == firewalld.remove()
        with monkeypatch.context() as patch:
            patch.setenv("PATH", str(tmp_path))
            assert () == firewalld.ensure() == firewalld.remove()
