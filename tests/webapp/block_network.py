"""Run the page without network access; requested host names are written to the file `OFFLINE`."""

import os
import runpy
import socket
from pathlib import Path
from typing import Any

OWN = ("127.0.0.1", "localhost", "::1", "0.0.0.0", "", None)


def forbid(file: Path) -> None:
    def call(address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else address
        if host not in OWN:
            with file.open("a") as calls:
                calls.write(f"{host}\n")
            raise OSError(f"{host} was called")

    def guarded(name: str) -> None:
        before = getattr(socket.socket, name)

        def method(self: socket.socket, address: Any, *rest: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                call(address)
            return before(self, address, *rest)

        setattr(socket.socket, name, method)

    looked_up = socket.getaddrinfo

    def getaddrinfo(host: Any, *rest: Any, **options: Any) -> Any:
        call(host.decode() if isinstance(host, bytes) else host)
        return looked_up(host, *rest, **options)

    guarded("connect")
    guarded("connect_ex")
    socket.getaddrinfo = getaddrinfo


if __name__ == "__main__":
    forbid(Path(os.environ["OFFLINE"]))
    runpy.run_module("boneage_pl.app", run_name="__main__", alter_sys=True)
