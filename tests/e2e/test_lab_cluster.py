"""``seaway lab`` with real agents: several hosts become a cluster, whose stores can be killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from seaway.lab import cluster, faults, lifecycle
from seaway.lab.topology import Lab
from tests.support.netns import ENVIRONMENT, wait_until

NAME = f"lc{os.getpid()}"
SECONDS = 30  # that three hosts may take


def lab_command(*words: str) -> str:
    """Run ``seaway lab WORDS`` on the lab of this module; return what it printed."""
    argv = [sys.executable, "-m", "seaway", "lab", words[0], "--name", NAME, *words[1:]]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, env=ENVIRONMENT)
    assert 0 == done.returncode, done.stderr
    return done.stdout + done.stderr


def listed() -> dict[str, dict[str, Any]]:
    """What ``lab ls`` says, by machine."""
    rows = map(json.loads, lab_command("ls", "--format", "json").splitlines())
    return {row["Machine"]: row for row in rows}


def state(lab: Lab, host: str) -> Any:
    """What ``cluster status`` is made of."""
    return cluster.ask(lab.host(host), "GET", "/v1/cluster")


def healthy(lab: Lab, host: str) -> set[str]:
    """The stores that are well, as a host sees it."""
    return {s["host"] for s in state(lab, host)["stores"] if s["healthy"] and not s["learner"]}


@pytest.fixture(scope="module")
def lab() -> Iterator[tuple[Lab, float]]:
    """Three hosts, and how many seconds they took."""
    lifecycle.down(Lab(name=NAME))
    try:
        begin = time.monotonic()
        lab_command("up", "--hosts", "3")
        yield lifecycle.find(NAME), time.monotonic() - begin
    finally:
        lifecycle.down(Lab(name=NAME))


def test_three_hosts_are_a_cluster_in_time(lab):
    """All know each other by the lab's names, in order, and each runs a store that is well."""
    made, seconds = lab

    assert seconds < SECONDS
    nodes = cluster.ask(made.host("host2"), "GET", "/v1/nodes")
    assert [("host1", 1), ("host2", 2), ("host3", 3)] == [(n["name"], n["number"]) for n in nodes]
    assert {"host1", "host2", "host3"} == healthy(made, "host3")
    assert ["up"] * 3 == [listed()[name]["Store"] for name in made.host_names]


def test_up_again_keeps_the_cluster_and_adds_hosts(lab):
    """The fourth joins the three; asked once more, nothing happens."""
    before = state(lab[0], "host1")["cluster"]

    assert "host4 joins" in lab_command("up", "--hosts", "4")
    assert "join" not in lab_command("up")
    wider = lifecycle.find(NAME)
    assert {before} == {state(wider, name)["cluster"] for name in wider.host_names}
    assert 4 == state(wider, "host1")["hosts"]["alive"]


def test_a_killed_store_is_gone_until_healed(lab):
    """The other two go on; nobody finds the third, though its agent starts it again."""
    made, _ = lab
    lab_command("kill-store", "host1")
    try:
        wait_until(lambda: {"host2", "host3"} == healthy(made, "host2"), 10)
        wait_until(lambda: "held" == listed()["host1"]["Store"])
        wait_until(lambda: state(made, "host1")["online"], 10)
        cluster.ask(made.host("host1"), "POST", "/v1/networks", {"name": "meanwhile"})
    finally:
        lab_command("heal", "host1")

    wait_until(lambda: {"host1", "host2", "host3"} == healthy(made, "host2"), 20)
    assert "up" == listed()["host1"]["Store"]


def test_a_store_killed_once_comes_back_by_itself(lab):
    """Its agent starts it again."""
    made, _ = lab
    lab_command("kill-store", "--once", "host2")

    wait_until(lambda: {"host1", "host2", "host3"} == healthy(made, "host1"), 20)


def test_a_power_cut_ends_the_store_and_keeps_its_data(lab):
    """Nothing of it runs any more; booted again, the host is the same member."""
    made, _ = lab
    identity = (made.host("host3").state_dir / "cluster" / "member.json").read_text()
    faults.power_off(made, "host3")
    assert "-" == listed()["host3"]["Store"]

    lab_command("start", "host3")
    wait_until(lambda: "host3" in healthy(made, "host1"), 20)
    assert identity == (made.host("host3").state_dir / "cluster" / "member.json").read_text()


def test_nothing_is_left_of_it(lab):
    """Neither etcd nor a tunnel's process outlives the lab."""
    made, _ = lab
    lab_command("down")

    assert [] == [name for name in made.host_names if _anyone(made.host(name).state_dir)]


def _anyone(folder: os.PathLike[str]) -> bool:
    found = subprocess.run(["pgrep", "-f", f"{folder}/"], capture_output=True, text=True)
    return bool(found.stdout)
