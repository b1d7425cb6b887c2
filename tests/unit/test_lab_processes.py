"""Processes are never mistaken for one another."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from seaway.lab import processes
from seaway.lab.processes import Process


@pytest.fixture
def child():
    """A process of our own that does nothing."""
    running = subprocess.Popen(["sleep", "100"])
    yield running
    running.kill()
    running.wait()


def started(pid: int) -> int:
    stat = processes.look(pid)
    assert stat is not None
    return stat.process.started


def test_we_can_look_at_ourselves():
    """The parent and the start of a living process are known."""
    stat = processes.look(os.getpid())

    assert stat is not None
    assert os.getppid() == stat.parent
    assert stat.process.started > 0


def test_a_name_with_parentheses_confuses_nobody(tmp_path):
    """The program's own name may hold what separates the fields."""
    program = tmp_path / "a) S 1 ("
    program.symlink_to(sys.executable)
    code = "import sys; sys.stdin.read()"
    with subprocess.Popen([program, "-c", code], stdin=subprocess.PIPE) as odd:
        stat = processes.look(odd.pid)
        odd.communicate(b"")

    assert stat is not None
    assert os.getpid() == stat.parent
    assert "a) S 1 (" == stat.name


def test_a_program_is_found_by_its_name_and_namespace(child, tmp_path):
    """Whoever started it; an absent namespace has nobody."""
    here = Path("/proc/self/ns/net")

    assert child.pid in [p.pid for p in processes.named("sleep", here)]
    assert child.pid not in [p.pid for p in processes.named("slee", here)]
    assert [] == processes.named("sleep", tmp_path / "absent")


def test_a_process_that_has_ended_is_gone_before_it_is_reaped(child):
    """A zombie counts as ended, and is still told from others."""
    process = Process(child.pid, started(child.pid))
    child.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)

    assert processes.look(child.pid) is None
    stat = processes.read_stat(child.pid)
    assert stat is not None
    assert process == stat.process


def test_a_pid_file_remembers_one_process(child, tmp_path):
    """What is written is found again as long as it runs."""
    path = tmp_path / "agent.pid"
    processes.write_pid_file(path, Process(child.pid, started(child.pid)))

    stat = processes.read_pid_file(path)

    assert stat is not None
    assert child.pid == stat.process.pid


@pytest.mark.parametrize("text", ["", "12", "a b", "1 2 3", "999999999 1"])
def test_a_broken_pid_file_remembers_nobody(tmp_path, text):
    """Half a file, or a number that no process has, is no process."""
    path = tmp_path / "agent.pid"
    path.write_text(text)

    assert processes.read_pid_file(path) is None
    assert processes.read_pid_file(tmp_path / "missing") is None


def test_a_number_that_was_given_out_again_is_somebody_else(child, tmp_path):
    """The same PID with another start time is never found, signalled or killed."""
    earlier = Process(child.pid, started(child.pid) - 1)
    path = tmp_path / "agent.pid"
    processes.write_pid_file(path, earlier)

    assert processes.read_pid_file(path) is None
    assert not processes.send(earlier, signal.SIGKILL)
    processes.kill([earlier], 1)
    assert child.poll() is None


def test_kill_waits_for_the_end(child):
    """When kill returns, the process has ended."""
    processes.kill([Process(child.pid, started(child.pid))], 5)

    assert processes.look(child.pid) is None


def test_nobody_lives_in_what_is_no_namespace(tmp_path):
    """A plain file, a missing one, and the machine's own namespace have no inhabitants."""
    stale = tmp_path / "stale"
    stale.touch()

    assert not processes.inhabitants([stale, tmp_path / "missing"])
