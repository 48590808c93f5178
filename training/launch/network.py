"""Finds the network interface of this machine that has an address."""

from __future__ import annotations

import contextlib
import socket
import struct
import sys

#: Linux: the IPv4 address of an interface.
SIOCGIFADDR = 0x8915


def interface_of(address: str) -> str | None:
    """Find the network interface of this machine that has an IPv4 address; None if none has, or the machine is no Linux."""
    if sys.platform != "linux":
        return None
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # an interface without an address
                answer = fcntl.ioctl(sock, SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(answer[20:24]) == address:
                    return name
    return None
