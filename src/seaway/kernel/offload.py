"""What a link leaves to hardware: checksums, asked and set as ethtool(8) does.

Source: include/uapi/linux/{ethtool,sockios}.h; dev_ioctl(), net/core/dev_ioctl.c.
"""

from __future__ import annotations

import array
import errno
import fcntl
import socket
import struct
from typing import Final

from seaway.errors import from_errno

_SIOCETHTOOL: Final = 0x8946
_GTXCSUM, _STXCSUM = 0x16, 0x17  # ETHTOOL_GTXCSUM, ETHTOOL_STXCSUM


def tx_checksum(link: str) -> bool:
    """Are checksums of what leaves by *link* left for later, to hardware or whoever is next?

    True too where nobody can tell.
    """
    try:
        return bool(_ethtool(link, _GTXCSUM, 0))
    except OSError:
        return True


def set_tx_checksum(link: str, on: bool) -> None:
    """Make the kernel compute checksums of what leaves by *link* itself (False), or not.

    Without them packets are not left to be cut by hardware, either.

    Raises:
        KernelError: Refused, or there is no such link.
    """
    try:
        _ethtool(link, _STXCSUM, on)
    except OSError as err:
        what = f"checksum offload of {link}"
        raise from_errno("set", what, err.errno or errno.EIO) from None


def _ethtool(link: str, command: int, value: int) -> int:
    """Do one command of struct ethtool_value, in the calling thread's namespace."""
    data = array.array("I", (command, value))
    request = struct.pack("16sP16x", link.encode(), data.buffer_info()[0])  # struct ifreq
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
    return data[1]
