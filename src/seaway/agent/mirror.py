"""This host's copy of what it knows of its cluster, for a start while the store is away.

A copy: losing its last seconds loses nothing, so it is written behind, in a
thread, and without waiting for the disk.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from seaway.errors import StoreError
from seaway.store import keys

log = structlog.get_logger()

_SCHEMA = """
CREATE TABLE IF NOT EXISTS record (
    key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL
) WITHOUT ROWID;
"""
_SKIPPED = (keys.ALIVE,)  # says nothing about the next start

News = Iterable[tuple[str, bytes | None, int]]
"""Key, value or None for one that has gone, revision."""


class Mirror:
    """Keeps records in one SQLite file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="mirror")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                self._db = _opened(path)
            except sqlite3.DatabaseError as err:
                log.warning("mirror_damaged", path=str(path), error=str(err))
                for file in path.parent.glob(f"{path.name}*"):  # a copy: the store has it all
                    file.unlink()
                self._db = _opened(path)
        except (sqlite3.Error, OSError) as err:
            raise StoreError(f"cannot keep {path}: {err}; check the disk and --state-dir") from err

    def load(self) -> Iterator[tuple[str, bytes, int]]:
        """Read everything, sorted by key, one after the other: it may be a lot."""
        try:
            rows = self._db.execute("SELECT key, value, revision FROM record ORDER BY key")
            yield from ((str(key), bytes(value), int(revision)) for key, value, revision in rows)
        except sqlite3.Error as err:
            raise StoreError(f"cannot read {self._path}: {err}") from err

    def put(self, news: News) -> None:
        """Take over some records, soon."""
        kept = [item for item in news if not item[0].startswith(_SKIPPED)]
        if kept:
            self._writer.submit(self._write, (), kept)

    def replace(self, prefixes: Iterable[str], records: News) -> None:
        """Take over all there is below *prefixes*, soon."""
        self._writer.submit(self._write, tuple(prefixes), list(records))

    def forget(self, prefixes: Iterable[str]) -> None:
        """Drop all there is below *prefixes*, soon."""
        self._writer.submit(self._write, tuple(prefixes), [])

    def close(self) -> None:
        """Write what is left, and close the file."""
        self._writer.shutdown()
        self._db.close()

    def _write(self, prefixes: Iterable[str], news: list[tuple[str, bytes | None, int]]) -> None:
        try:
            self._db.execute("BEGIN")
            for prefix in prefixes:
                self._db.execute("DELETE FROM record WHERE key >= ? AND key < ?", _span(prefix))
            gone = [(key,) for key, value, _ in news if value is None]
            self._db.executemany("DELETE FROM record WHERE key = ?", gone)
            there = [item for item in news if item[1] is not None]
            self._db.executemany("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", there)
            self._db.execute("COMMIT")
        except sqlite3.Error as err:  # a full disk must not keep the agent from its work
            log.warning("mirror_not_written", path=str(self._path), error=str(err))
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")


def _opened(path: Path) -> sqlite3.Connection:
    """Open the file, which a power cut may have damaged.

    Raises:
        sqlite3.DatabaseError: It is.
    """
    found = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        found.execute("PRAGMA journal_mode=WAL")
        found.execute("PRAGMA synchronous=OFF")
        found.executescript(_SCHEMA)
        _check(found)
    except BaseException:
        found.close()
        raise
    return found


def _check(database: sqlite3.Connection) -> None:
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


def _span(prefix: str) -> tuple[str, str]:
    return prefix, prefix[:-1] + chr(ord(prefix[-1]) + 1)
