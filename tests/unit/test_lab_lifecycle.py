"""What can be said about labs without making one."""

import threading

import pytest

from seaway.errors import Conflict, NotFound, Unsupported
from seaway.lab import faults, lifecycle
from seaway.lab.topology import Lab


@pytest.fixture
def lab(tmp_path):
    """A lab that is only folders."""
    return Lab(name="nosuch", state_root=tmp_path / "state", run_root=tmp_path / "run")


def test_a_lab_is_known_by_what_is_left_of_it(lab):
    """Hosts that are powered off count; a lab of which nothing is left does not exist."""
    assert lifecycle.known_hosts(lab) is None
    lab.host("host1").state_dir.mkdir(parents=True)
    (lab.state_dir / "host3").mkdir()
    (lab.run_dir / "host2").mkdir(parents=True)

    assert 3 == lifecycle.known_hosts(lab)
    assert 3 == lifecycle.find(lab.name, lab.state_root, lab.run_root).hosts


def test_finding_no_lab_says_how_to_make_one(lab):
    """The message is the cure."""
    with pytest.raises(NotFound, match="seaway lab up --name nosuch"):
        lifecycle.find(lab.name, lab.state_root, lab.run_root)


def test_labs_are_listed_without_folders_of_others(lab):
    """An empty folder, and one that is no lab's name, are no labs."""
    lab.host("host1").state_dir.mkdir(parents=True)
    (lab.state_root / "Not A Lab" / "host1").mkdir(parents=True)
    (lab.run_root / "empty").mkdir(parents=True)

    found = [found.name for found in lifecycle.labs(lab.state_root, lab.run_root)]

    assert "nosuch" in found
    assert not {"Not A Lab", "empty"} & set(found)


def test_one_at_a_time_works_on_a_lab(lab, monkeypatch):
    """The second to come waits, and gives up with a reason."""
    monkeypatch.setattr(lifecycle, "_LOCK_SECONDS", 0.1)

    with lifecycle.locked(lab), pytest.raises(Conflict, match="another command is working"):
        with lifecycle.locked(lab):
            pass


def test_a_lock_on_a_removed_folder_is_no_lock(lab):
    """Who waited while the lab was removed locks the new folder, not the old one."""
    inside = threading.Event()
    with lifecycle.locked(lab):
        waiter = threading.Thread(target=_hold, args=(lab, inside))
        waiter.start()
        lab.run_dir.rmdir()  # as down() does at its end
        assert inside.wait(5)  # the new folder is free
    waiter.join()


def _hold(lab, inside):
    with lifecycle.locked(lab):
        inside.set()


@pytest.mark.parametrize(
    "work",
    [
        lifecycle.up,
        lifecycle.down,
        lambda lab: faults.start(lab, "host1"),
        lambda lab: faults.kill(lab, "host1"),
        lambda lab: faults.pause(lab, "host1"),
        lambda lab: faults.resume(lab, "host1"),
        lambda lab: faults.power_off(lab, "host1"),
        lambda lab: faults.cut(lab, "host1"),
        lambda lab: faults.kill_store(lab, "host1"),
        lambda lab: faults.readdress(lab, "host1", 9),
        faults.heal,
    ],
)
def test_without_root_one_line_says_so(lab, work, monkeypatch):
    """Nothing is tried, and the cure is in the message."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    with pytest.raises(Unsupported, match="needs root: use sudo"):
        work(lab)
    assert not lab.run_root.exists()


def test_a_missing_program_is_named_with_its_package(lab, monkeypatch):
    """Before anything is made, what is not installed is told."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(Unsupported, match="'ip': install the package iproute2"):
        lifecycle.up(lab)
    assert not lab.run_root.exists()
