"""Loading the one eBPF program, with a stand-in for the kernel."""

from __future__ import annotations

import ctypes
import errno

import pytest

from seaway.errors import Unsupported
from seaway.kernel import bpf


class Kernel:
    """Answers each call of bpf(2) with the next of some error numbers, and then with success."""

    def __init__(self, *errors):
        self.errors = list(errors)

    def syscall(self, *_):
        """Return a descriptor, or -1 with errno set."""
        if not self.errors:
            return 7
        ctypes.set_errno(self.errors.pop(0))
        return -1


@pytest.fixture
def load(monkeypatch):
    """Load the program into a kernel that fails in these ways first."""

    def loading(*errors):
        monkeypatch.setattr(bpf, "_libc", Kernel(*errors))
        return bpf._drop_all.__wrapped__()

    return loading


def test_a_signal_while_loading_does_no_harm(load):
    """The kernel gives up when one comes in, and takes the program the next time."""
    assert 7 == load(errno.EAGAIN, errno.EAGAIN)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_a_kernel_that_refuses_is_quoted(load, number):
    """One line has the kernel's reason; it is not asked again."""
    with pytest.raises(Unsupported, match=r"not implemented|not permitted"):
        load(number, number, number, number, errno.EBADF)
