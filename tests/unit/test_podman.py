"""How Podman is called on this and other machines."""

from __future__ import annotations

import asyncio
import os
import resource
from pathlib import Path

import pytest

from seaway.engine import podman
from seaway.engine.podman import Podman, container_ids, find


def machine(monkeypatch, *, systemd=False, cgroup2=False, runc=True):
    """Pretend that the machine has, or lacks, what the flags depend on."""
    answers = {"/run/systemd/system": systemd, "/sys/fs/cgroup/cgroup.controllers": cgroup2}
    for name in ("is_dir", "exists"):
        real = getattr(Path, name)
        monkeypatch.setattr(
            Path,
            name,
            lambda path, real=real: (
                answers.get(str(path)) or (str(path) not in answers and real(path))
            ),
        )
    monkeypatch.setattr(podman.shutil, "which", lambda name: f"/bin/{name}" if runc else None)


@pytest.mark.parametrize(
    ("traits", "there", "absent"),
    [
        ({"systemd": True, "cgroup2": True}, [], ["--cgroup-manager", "--runtime"]),
        ({"systemd": False, "cgroup2": True}, ["--cgroup-manager", "cgroupfs"], ["--runtime"]),
        ({"systemd": True, "cgroup2": False}, ["--runtime", "runc"], ["--cgroup-manager"]),
        ({"systemd": True, "cgroup2": False, "runc": False}, [], ["--runtime"]),
    ],
)
def test_flags_follow_the_machine(monkeypatch, tmp_path, traits, there, absent):
    """cgroupfs without systemd; runc where crun refuses the cgroups."""
    machine(monkeypatch, **traits)
    flags = find(None, tmp_path, None).flags

    assert there == [flag for flag in flags if flag in there]
    assert not set(absent) & set(flags)


def test_a_store_of_its_own_shares_nothing(tmp_path):
    """Root, runroot, tmpdir, locks and settings; the machine's own store gets none of them."""
    own, shared = find(tmp_path / "root", tmp_path, None), find(None, tmp_path, None)

    assert str(tmp_path / "root") == own.flags[own.flags.index("--root") + 1]
    assert {"--root", "--runroot", "--tmpdir"} <= set(own.flags)
    assert 'lock_type = "file"' in Path(own.environment["CONTAINERS_CONF"]).read_text()
    assert not {"--root", "--runroot", "--tmpdir"} & set(shared.flags)
    assert "CONTAINERS_CONF" not in shared.environment


def test_images_of_a_shared_store_are_used_if_there(tmp_path):
    """Podman refuses a store that is not there, so it is not named then."""
    there, absent = find(None, tmp_path, tmp_path), find(None, tmp_path, tmp_path / "nowhere")

    assert f"additionalimagestore={tmp_path}" in there.flags
    assert "--storage-opt" not in absent.flags


def test_short_names_mean_docker_s_where_nobody_says_what_they_mean(tmp_path):
    """A machine that says it itself is left alone."""
    silent, told = tmp_path / "silent.conf", tmp_path / "told.conf"
    silent.write_text("# nothing\n")
    told.write_text('unqualified-search-registries = ["quay.io"]\n')

    made = podman._registries(tmp_path / "run", silent)
    assert (
        'unqualified-search-registries = ["docker.io"]'
        in Path(made["CONTAINERS_REGISTRIES_CONF"]).read_text()
    )
    assert made == podman._registries(tmp_path / "run", tmp_path / "nowhere.conf")
    assert {} == podman._registries(tmp_path / "run", told)


def test_limits_are_asked_for_only_where_we_may_not_raise_them(monkeypatch):
    """Both, and no higher than our own."""
    monkeypatch.setattr(podman, "_has_capability", lambda number: True)
    assert () == podman._ulimits()

    monkeypatch.setattr(podman, "_has_capability", lambda number: False)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 1000))
    assert (
        *("--ulimit", "nofile=1000:1000"),
        *("--ulimit", "nproc=1000:1000"),
    ) == podman._ulimits()


def test_the_capabilities_are_read():
    """Root of the first user namespace has CAP_NET_ADMIN; a test without it is no root."""
    effective = next(
        line for line in Path("/proc/self/status").read_text().splitlines() if "CapEff" in line
    )

    assert bool(int(effective.split()[1], 16) >> 12 & 1) == podman._has_capability(12)
    assert not podman._has_capability(63)


def test_a_call_has_the_flags_first():
    """Global flags come before the subcommand."""
    assert ["podman", "--x", "ps", "-a"] == Podman(flags=("--x",), environment={}).argv("ps", "-a")


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """A program called podman, the first on the PATH."""

    def write(script):
        path = tmp_path / "podman"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        return Podman(environment={"WHICH": "ours"})

    return write


def test_containers_are_listed_in_the_same_surroundings(fake):
    """With the environment every other call has."""
    assert {"abc", "ours"} == asyncio.run(container_ids(fake('echo abc; echo "$WHICH"')))


def test_a_podman_that_fails_cannot_tell(fake, monkeypatch):
    """None, which is not the same as no containers."""
    assert asyncio.run(container_ids(fake("exit 1"))) is None
    monkeypatch.setenv("PATH", "/nonexistent")
    assert asyncio.run(container_ids(Podman(environment={}))) is None
