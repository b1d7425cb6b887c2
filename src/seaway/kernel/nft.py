"""nftables through libnftables, in this process: text in, text out.

72 microseconds a transaction against 2 ms for starting nft (docs/adr/0003).
"""

from __future__ import annotations

import ctypes
import json
from ctypes.util import find_library
from typing import Any

from seaway.errors import KernelError, Unsupported, from_errno

_OUTPUT_JSON = 1 << 4  # NFT_CTX_OUTPUT_JSON, nftables/libnftables.h


def _load() -> ctypes.CDLL:
    for name in ("libnftables.so.1", find_library("nftables")):
        try:
            lib = ctypes.CDLL(name) if name else None
        except OSError:
            lib = None
        if lib is not None:
            break
    else:
        raise Unsupported("libnftables is not installed: apt-get install libnftables1")
    lib.nft_ctx_new.restype = ctypes.c_void_p
    lib.nft_ctx_new.argtypes = [ctypes.c_uint32]
    for name in ("nft_ctx_buffer_output", "nft_ctx_buffer_error", "nft_ctx_free"):
        getattr(lib, name).argtypes = [ctypes.c_void_p]
    lib.nft_ctx_output_set_flags.argtypes = [ctypes.c_void_p, ctypes.c_uint]
    lib.nft_run_cmd_from_buffer.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
    for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
        getattr(lib, name).argtypes = [ctypes.c_void_p]
        getattr(lib, name).restype = ctypes.c_char_p
    return lib


class Nft:
    """A libnftables context.

    It works in the network namespace of the thread that makes it (its netlink
    socket is opened here), and is not for use by two threads at once.
    """

    def __init__(self) -> None:
        self._lib = _load()
        self._ctx = self._lib.nft_ctx_new(0)
        self._lib.nft_ctx_buffer_output(self._ctx)
        self._lib.nft_ctx_buffer_error(self._ctx)

    def close(self) -> None:
        """Free the context."""
        if self._ctx:
            self._lib.nft_ctx_free(self._ctx)
            self._ctx = None

    def run(self, commands: str) -> str:
        """Run *commands* as one transaction, all or nothing; return what they print.

        Raises:
            KernelError: nft refused; the message is the first line it printed.
        """
        ctypes.set_errno(0)
        failed = self._lib.nft_run_cmd_from_buffer(self._ctx, commands.encode())
        # Both buffers are emptied by reading, so that nothing is left for the next call.
        out: bytes = self._lib.nft_ctx_get_output_buffer(self._ctx) or b""
        err: bytes = self._lib.nft_ctx_get_error_buffer(self._ctx) or b""
        if failed:
            raise _refusal(commands, err.decode(errors="replace"))
        return out.decode()

    def listing(self, what: str) -> list[dict[str, Any]]:
        """List objects as JSON, e.g. ``table inet seaway``; [] when there is no such thing."""
        self._lib.nft_ctx_output_set_flags(self._ctx, _OUTPUT_JSON)
        try:
            text = self.run(f"list {what}")
        except KernelError as err:
            if "No such file or directory" in str(err):
                return []
            raise
        finally:
            self._lib.nft_ctx_output_set_flags(self._ctx, 0)
        found: list[dict[str, Any]] = json.loads(text)["nftables"]
        return found[1:]  # the first entry describes the format


def _refusal(commands: str, err: str) -> KernelError:
    """Make an error of nft's words; libnftables gives no errno, its text is not localised."""
    first = next((line for line in err.splitlines() if "Error" in line), err.strip())
    words = first.split("Error: ")[-1].strip() or "refused without a word"
    target = " ".join(commands.split())[:80]
    return from_errno("nft", target, 5, words)  # EIO: no better number is known
