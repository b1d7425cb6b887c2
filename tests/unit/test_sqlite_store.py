"""The SQLite store: all or nothing, one winner, still there afterwards."""

from __future__ import annotations

import sqlite3

import pytest

from seaway.errors import Conflict, StoreError
from seaway.store.port import Delete, Put, Record
from seaway.store.sqlite import SqliteStore


@pytest.fixture
def path(tmp_path):
    """Where the store is."""
    return tmp_path / "deep" / "state.db"


@pytest.fixture
def store(path):
    """An open store."""
    found = SqliteStore(path)
    yield found
    found.close()


def test_a_new_store_is_empty_and_private(store, path):
    """And nobody else may look into its folder."""
    assert [] == store.load()
    assert 0 == path.parent.stat().st_mode & 0o077


def test_what_was_committed_is_there_after_reopening(store, path):
    """With its revision, sorted by key."""
    first = store.commit([Put("b", b"2"), Put("a", b"1")])
    second = store.commit([Put("b", b"3", first)])
    store.close()

    again = SqliteStore(path)

    assert [Record("a", b"1", first), Record("b", b"3", second)] == again.load()
    assert second < again.commit([Put("c", b"4")])
    again.close()


def test_of_two_writers_one_wins(store, path):
    """The other is told, and nothing of its commit stands."""
    first = store.commit([Put("a", b"1")])
    other = SqliteStore(path)
    other.commit([Put("a", b"theirs", first)])
    other.close()

    with pytest.raises(Conflict, match="try again"):
        store.commit([Put("b", b"mine"), Delete("a"), Put("a", b"mine", first)])
    assert [b"theirs"] == [record.value for record in store.load()]


@pytest.mark.parametrize("revision", [1, 99])
def test_a_revision_of_something_that_is_not_there(store, revision):
    """It was deleted by someone else, so it is not changed."""
    with pytest.raises(Conflict):
        store.commit([Put("a", b"1", revision)])
    assert [] == store.load()


def test_deleting_what_is_gone_is_fine(store):
    """And a key may be put again after it has been deleted in the same commit."""
    first = store.commit([Put("a", b"1")])
    store.commit([Delete("a"), Delete("b")])
    store.commit([Put("a", b"2")])

    assert [b"2"] == [record.value for record in store.load()]
    assert first < store.load()[0].revision


def test_an_iterator_that_fails_half_way_writes_nothing(store):
    """A bug in the caller is not the store's business, but its transaction is."""

    def changes():
        yield Put("a", b"1")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.commit(changes())
    assert [] == store.load()
    store.commit([Put("a", b"1")])


def test_a_full_disk_is_an_error_and_not_for_ever(store):
    """One line; what was there stays; once there is room, writing works again."""
    store.commit([Put("a", b"1")])
    pages = store._db.execute("PRAGMA page_count").fetchone()[0]
    store._db.execute(f"PRAGMA max_page_count={pages}")

    with pytest.raises(StoreError, match=r"cannot write .*; check the disk"):
        store.commit([Put("big", b"x" * 100_000)])
    assert [b"1"] == [record.value for record in store.load()]

    store._db.execute("PRAGMA max_page_count=1000000")
    store.commit([Put("big", b"x" * 100_000)])
    assert 2 == len(store.load())


def test_a_file_that_is_no_database(path):
    """The message names the file and the flag."""
    path.parent.mkdir()
    path.write_bytes(b"this is no database, " * 100)

    with pytest.raises(StoreError, match=r"state\.db.*--state-dir"):
        SqliteStore(path)


def test_a_folder_that_cannot_be_made(tmp_path):
    """The same message."""
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="--state-dir"):
        SqliteStore(tmp_path / "file" / "state.db")


def test_a_lock_that_somebody_holds(store, path, monkeypatch):
    """An error, not a wait for ever."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store._db.execute("PRAGMA busy_timeout=10")

    with pytest.raises(StoreError, match="locked"):
        store.commit([Put("a", b"1")])
    other.execute("ROLLBACK")
    other.close()
    store.commit([Put("a", b"1")])
