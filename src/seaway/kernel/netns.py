"""Network namespaces: make, enter, keep and drop them."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from seaway.errors import InvalidSpec, KernelError, NotFound, from_errno

CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
MS_BIND = 4096  # include/uapi/linux/mount.h
MS_REC = 16384
MS_SHARED = 1 << 20
MNT_DETACH = 2  # umount2(2)

_libc = ctypes.CDLL(None, use_errno=True)
_HOME = "/proc/thread-self/ns/net"


def _check(result: int, operation: str, target: str) -> None:
    if result != 0:
        raise from_errno(operation, target, ctypes.get_errno())


@contextmanager
def inside(path: str) -> Iterator[None]:
    """Run the body in the namespace that *path* opens ("" stays where we are).

    Only the calling thread moves, and the body must not await: a socket opened
    inside stays in that namespace for ever, which is all that callers want.

    Raises:
        NotFound: The namespace has gone.
        InvalidSpec: *path* is not a network namespace.

    Kernel:
        setns(2) with CLONE_NEWNET; CAP_SYS_ADMIN.  About 10 microseconds each way.
    """
    if not path:
        yield
        return
    home = os.open(_HOME, os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = open_netns(path)
        try:
            _check(_libc.setns(there, CLONE_NEWNET), "enter", path)
        except KernelError as err:
            raise InvalidSpec(f"{path} is not a network namespace") from err
        finally:
            os.close(there)
        try:
            yield
        finally:
            _check(_libc.setns(home, CLONE_NEWNET), "return from", path)
    finally:
        os.close(home)


def open_netns(path: str) -> int:
    """Open a namespace; the descriptor can name it in netlink messages.

    Raises:
        NotFound: Nothing is there.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as err:
        raise NotFound(f"no network namespace at {path}: {err.strerror}") from None


def exists(path: str) -> bool:
    """Is *path* a mounted namespace, and not just the file that a reboot left behind?"""
    try:
        # Every namespace lives on the one nsfs, whose device is no disk's.
        return Path(path).stat().st_dev == Path(_HOME).stat().st_dev
    except OSError:
        return False


def share(folder: str) -> None:
    """Make *folder* a shared mount, as ip-netns(8) makes /run/netns one; fine if it is.

    ip does so when it adds its first name.  What others keep in the folder by then is mounted
    twice from there on, and cannot be removed any more.

    Source:
        netns_add() in iproute2's ip/ipnetns.c, which takes the same lock.
    """
    path = folder.encode()
    Path(folder).mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _libc.mount(b"", path, b"none", MS_SHARED | MS_REC, None) != 0:  # it is no mount yet
            _check(_libc.mount(path, path, b"none", MS_BIND | MS_REC, None), "mount", folder)
            _check(_libc.mount(b"", path, b"none", MS_SHARED | MS_REC, None), "share", folder)
    finally:
        os.close(lock)


def create(path: str) -> None:
    """Make a namespace and keep it at *path*; fine if it is already there.

    A file without a mount (a crash between the two, or a reboot with /run on
    disk) is used.
    """
    if exists(path):
        return
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch(mode=0o444)
    except OSError as err:
        raise from_errno("keep netns at", path, err.errno or errno.EIO) from None
    home = os.open(_HOME, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_libc.unshare(CLONE_NEWNET), "create netns", path)
        try:
            _check(
                _libc.mount(_HOME.encode(), path.encode(), b"none", MS_BIND, None), "mount", path
            )
        finally:
            _check(_libc.setns(home, CLONE_NEWNET), "return from", path)
    finally:
        os.close(home)


def remove(path: str) -> None:
    """Let go of the namespace at *path*; fine if it has gone.

    The kernel destroys it, with every link in it, when its last process ends.
    """
    _libc.umount2(path.encode(), MNT_DETACH)  # not mounted is as good
    Path(path).unlink(missing_ok=True)


def inode(path: str) -> int:
    """Return the number that tells namespaces apart while they exist; 0 if there is none."""
    try:
        return Path(path).stat().st_ino
    except OSError:
        return 0


def of_pid(pid: int) -> str:
    """Path of the network namespace that process *pid* runs in."""
    return f"/proc/{pid}/ns/net"


def same(a: str, b: str) -> bool:
    """Do both paths open one namespace?  False when either has gone."""
    try:
        return Path(a).samefile(b)
    except OSError:
        return False
