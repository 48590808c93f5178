"""The interface that an address belongs to."""

from __future__ import annotations

import socket
import sys

import pytest

from crossdim.training.launch.network import interface_of


@pytest.mark.skipif(sys.platform != "linux", reason="interfaces are asked for in Linux' way")
def test_the_loopback_address_is_the_loopback_interface_s() -> None:
    assert interface_of("127.0.0.1") == "lo"
    assert "lo" in [name for _, name in socket.if_nameindex()]


def test_an_address_that_nobody_here_has_is_on_no_interface() -> None:
    """One kept for documentation."""
    assert interface_of("192.0.2.1") is None
