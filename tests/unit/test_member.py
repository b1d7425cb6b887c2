"""What a host keeps on disk of being a member."""

from __future__ import annotations

import pytest

from seaway.agent.member import Member, MemberFolder
from seaway.errors import StoreError

MEMBER = Member(host="1" * 12, cluster="c" * 12, name="host1", number=1, etcd=("https://a:7901",))


@pytest.fixture
def folder(tmp_path):
    """Of a host that is no member."""
    return MemberFolder(tmp_path)


def test_a_membership_is_there_after_a_restart(folder):
    """All of it, for its owner's eyes only."""
    assert folder.load() is None
    folder.begin()
    folder.save(MEMBER)

    assert MEMBER == MemberFolder(folder.path.parent).load()
    assert {0o700, 0o600} == {p.stat().st_mode & 0o777 for p in (folder.path, folder._file)}


def test_joining_that_was_broken_off_leaves_nothing(folder):
    """What it had made is no membership, and the next attempt begins without it."""
    folder.begin()
    folder.credentials.request("host1")
    (folder.path / "mirror.db").write_bytes(b"x")
    folder.wireguard_key(0).write_text("secret")

    assert MemberFolder(folder.path.parent).load() is None
    folder.begin()
    assert [] == list(folder.path.iterdir())
    folder.remove()
    assert [] == list(folder.path.parent.iterdir())


def test_a_membership_that_ended_is_forgotten(folder):
    """With all its keys; twice is fine."""
    folder.begin()
    folder.save(MEMBER)
    folder.credentials.request("host1")
    folder.remove()
    folder.remove()

    assert folder.load() is None
    assert not folder.path.exists()


@pytest.mark.parametrize("text", ["", "{", "{}", '{"host": 1}', "\xff"])
def test_a_damaged_membership_is_an_error(folder, text):
    """One line that says what to do: joining by itself could make a second host of this one."""
    folder.begin()
    folder._file.write_text(text)

    with pytest.raises(StoreError, match="join again") as caught:
        folder.load()
    assert "\n" not in str(caught.value)
