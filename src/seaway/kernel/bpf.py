"""The one eBPF program we load: a socket filter that drops everything.

One program serves every socket.  A classic filter would be translated and
compiled anew for each, which costs 8 of the 16 microseconds a bound port takes.

Source: bpf(2); include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import socket
import struct
from functools import cache

from seaway.errors import Unsupported

_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_PROG_LOAD, _SOCKET_FILTER = 5, 1  # enum bpf_cmd, enum bpf_prog_type
_SO_ATTACH_BPF = 50  # include/uapi/asm-generic/socket.h
_RETURN_0 = struct.pack("=BBhi", 0xB7, 0, 0, 0) + struct.pack("=BBhi", 0x95, 0, 0, 0)
_ATTR_SIZE = 128  # bytes; the kernel wants unused ones to be zero

_TRIES = 5  # a signal makes the verifier give up with EAGAIN, kernel/bpf/verifier.c

_libc = ctypes.CDLL(None, use_errno=True)


@cache
def _drop_all() -> int:
    """Load the program; the descriptor stays open as long as the agent runs."""
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise Unsupported(f"no number of the bpf system call is known for {platform.machine()}")
    code = ctypes.create_string_buffer(_RETURN_0)
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    fields = (_SOCKET_FILTER, 2, ctypes.addressof(code), ctypes.addressof(licence))
    attr = ctypes.create_string_buffer(struct.pack("=IIQQ", *fields).ljust(_ATTR_SIZE, b"\0"))
    for _ in range(_TRIES):
        fd: int = _libc.syscall(number, _PROG_LOAD, attr, _ATTR_SIZE)
        if fd >= 0:
            return fd
        if ctypes.get_errno() != errno.EAGAIN:
            break
    raise Unsupported(
        f"the kernel refuses eBPF socket filters ({os.strerror(ctypes.get_errno())}): "
        "it needs CONFIG_BPF_SYSCALL"
    )


def drop_all(sock: socket.socket) -> None:
    """Let nothing that arrives reach *sock*."""
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_BPF, _drop_all())
