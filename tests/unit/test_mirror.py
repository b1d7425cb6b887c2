"""A host's copy of what it knows of its cluster."""

from __future__ import annotations

import pytest

from seaway.agent.mirror import Mirror
from seaway.errors import StoreError
from seaway.store import keys

HOST, OTHER = keys.HOSTS + "1", keys.HOSTS + "2"


def kept(path):
    """What a new start finds."""
    mirror = Mirror(path)
    found = list(mirror.load())
    mirror.close()
    return found


@pytest.fixture
def path(tmp_path):
    """A file in a folder that is not there yet."""
    return tmp_path / "cluster" / "mirror.db"


def test_what_was_put_is_there_after_a_restart(path):
    """Sorted, as it was put last, without what has gone and without who was alive."""
    mirror = Mirror(path)
    mirror.put([(OTHER, b"2", 4), (HOST, b"1", 3), (keys.ALIVE + "1", b"1", 3)])
    mirror.put([(HOST, b"new", 5), (OTHER, None, 6), ("/seaway/v1/none", None, 6)])
    mirror.close()

    assert [(HOST, b"new", 5)] == kept(path)
    assert 0o700 == path.parent.stat().st_mode & 0o777


def test_what_is_not_below_a_prefix_stays(path):
    """Replaced or forgotten is what is below it, and what only begins alike is not."""
    mirror = Mirror(path)
    mirror.put([(HOST, b"1", 1), (OTHER, b"2", 1), ("/seaway/v1/shared/hostsx", b"3", 1)])
    mirror.replace([keys.HOSTS], [(OTHER, b"new", 2)])
    mirror.put([("/seaway/v1/on/ab/x", b"4", 3), ("/seaway/v1/on/abc/x", b"5", 3)])
    mirror.forget(["/seaway/v1/on/ab/"])
    mirror.close()

    assert [
        ("/seaway/v1/on/abc/x", b"5", 3),
        (OTHER, b"new", 2),
        ("/seaway/v1/shared/hostsx", b"3", 1),
    ] == kept(path)


@pytest.mark.parametrize("damage", [b"", b"no database" * 500, None])
def test_a_damaged_copy_is_begun_anew(path, damage):
    """After a power cut: the store has all of it, so nothing may keep the agent from its start."""
    mirror = Mirror(path)
    mirror.put([(f"{HOST}{n}", b"x" * 400, 1) for n in range(100)])
    mirror.close()
    if damage is None:  # pages in the middle, the first is good
        raw = bytearray(path.read_bytes())
        raw[4096:] = b"\xff" * (len(raw) - 4096)
        path.write_bytes(raw)
    else:
        path.write_bytes(damage)

    assert [] == kept(path)
    mirror = Mirror(path)
    mirror.put([(HOST, b"1", 1)])
    mirror.close()
    assert [(HOST, b"1", 1)] == kept(path)


def test_a_copy_that_cannot_be_kept_is_an_error(tmp_path):
    """One line that names the file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="--state-dir") as caught:
        Mirror(tmp_path / "file" / "mirror.db")
    assert "\n" not in str(caught.value)


def test_a_disk_that_fills_up_is_no_error(path):
    """The work goes on without the copy, and the copy goes on when there is room."""
    mirror = Mirror(path)
    mirror.put([(HOST, b"1", 1)])
    mirror._writer.submit(mirror._db.execute, "PRAGMA max_page_count = 1").result()
    mirror.put([(f"{HOST}{n}", b"x" * 4000, 2) for n in range(9)])
    mirror._writer.submit(mirror._db.execute, "PRAGMA max_page_count = 100000").result()
    mirror.put([(OTHER, b"2", 3)])
    mirror.close()

    assert [(HOST, b"1", 1), (OTHER, b"2", 3)] == kept(path)
