"""Check that an address can be bound."""

import errno
import socket

from boneage_pl.errors import BoneAgeError


def check_address(host: str, port: int | None) -> None:
    """Raise `BoneAgeError` where nothing can be served at an address.

    Args:
        host: a name or number of this machine's.
        port: of it; `None` for any.
    """
    at = f"host={host}" + (f" port={port}" if port else "")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port or 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
            tried.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = "the port is taken. Stop what uses it, or give another; port=null takes the first free one."
        elif error.errno == errno.EACCES:
            why = "only an administrator may serve there; ports from 1024 on are free for all."
        else:
            why = "no address of this machine. 127.0.0.1 is for itself alone, 0.0.0.0 for all that reach it."
        raise BoneAgeError(f"{at}: {why}") from error
