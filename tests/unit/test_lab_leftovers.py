"""What a host's containers leave behind."""

from pathlib import Path

from seaway.lab import leftovers
from seaway.lab.topology import Lab

MOUNTINFO = r"""
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
75 27 0:4 net:[4026532254] /run/lab/host1/netns/c1 rw - nsfs nsfs rw
76 27 254:0 /x /lib/lab/host1/podman/overlay rw - ext4 /dev/vda rw
77 76 0:62 / /lib/lab/host1/podman/a\040b/merged rw shared:1 - overlay overlay rw
78 27 0:63 / /lib/lab/host10/podman rw - tmpfs shm rw
""".strip()


def test_mounts_are_found_in_a_folder_latest_first():
    """Only what is inside counts, with blanks in names restored."""
    found = leftovers.mounts_under([Path("/lib/lab/host1"), Path("/run/lab/host1")], MOUNTINFO)

    assert [
        "/lib/lab/host1/podman/a b/merged",
        "/lib/lab/host1/podman/overlay",
        "/run/lab/host1/netns/c1",
    ] == found


def test_a_folder_next_door_is_not_inside():
    """host1 does not own what host10 has."""
    assert not leftovers.mounts_under([Path("/lib/lab/host")], MOUNTINFO)


def test_containers_are_found_without_podman(tmp_path):
    """The ids come from the storage's own listing, whatever the driver is called."""
    host = Lab(state_root=tmp_path).host("host1")
    for driver, ids in (("overlay", ["aa", "bb"]), ("vfs", ["cc"])):
        folder = host.podman_root / f"{driver}-containers"
        folder.mkdir(parents=True)
        listed = ", ".join(f'{{"id": "{i}", "names": []}}' for i in ids)
        (folder / "containers.json").write_text(f"[{listed}]")

    assert ["aa", "bb", "cc"] == sorted(leftovers.container_ids(host))


def test_a_half_written_listing_has_no_containers(tmp_path):
    """Removing a lab must not trip over a file that a crash has cut off."""
    host = Lab(state_root=tmp_path).host("host1")
    folder = host.podman_root / "overlay-containers"
    folder.mkdir(parents=True)
    (folder / "containers.json").write_text('[{"id": "a')

    assert not leftovers.container_ids(host)


def test_a_host_without_storage_has_no_containers(tmp_path):
    """Podman was never run there."""
    assert not leftovers.container_ids(Lab(state_root=tmp_path).host("host1"))
