"""The server's address."""

import socket

import pytest

from boneage_pl.errors import BoneAgeError
from boneage_pl.webapp.server import bind


def test_socket_is_known_to_be_of_tcp():
    """asyncio disables Nagle's delay only for these; else each response takes 40 ms more."""
    with bind("127.0.0.1", None) as bound:
        assert bound.proto == socket.IPPROTO_TCP


def test_first_free_port_is_taken():
    first, second = bind("127.0.0.1", None), bind("127.0.0.1", None)
    try:
        assert 7860 <= first.getsockname()[1] < second.getsockname()[1]
        with pytest.raises(BoneAgeError, match="the port is in use"):
            bind("127.0.0.1", first.getsockname()[1])
    finally:
        first.close()
        second.close()


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6_is_bound(host: str):
    try:
        socket.socket(socket.AF_INET6, socket.SOCK_STREAM).bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    bound = bind(host, None)
    assert bound.getsockname()[0] == "::1"
    bound.close()
