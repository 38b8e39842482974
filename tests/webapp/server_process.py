"""The server as a subprocess."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.trained_run import OWN, Home
from tests.webapp.http_client import free_port


class Served:
    """A running server."""

    def __init__(self, home: Home, *options: str) -> None:
        self.folder = home.path / "tmp"
        self.folder.mkdir(exist_ok=True)
        self.calls = home.path / "calls"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        env = {"OFFLINE": str(self.calls), "TMPDIR": str(self.folder)}
        command = [OWN, "ckpt=outputs/a", f"port={port}", *options]
        self.running = home.forks.start("tests.webapp.block_network", *command, cwd=home.path, **env)
        until = time.monotonic() + 120
        while "Ctrl-C" not in self.running._read("out"):
            ended = self.running.poll()
            assert ended is None, self.running._read("err")
            assert time.monotonic() < until, self.running._read("err")
            time.sleep(0.05)

    def uploads(self) -> list[Path]:
        """Return the files on the disk."""
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def memory(self) -> int:
        """Return the memory of the process in bytes."""
        pages = Path(f"/proc/{self.running.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        self.running.send_signal(signal.SIGINT)
        result = self.running.wait(60)
        assert result.returncode == 0, result.stderr
        assert "the page failed" not in result.stderr, result.stderr  # an unexpected error
        assert list(self.folder.iterdir()) == []  # nothing is left


@contextmanager
def served(home: Home, *options: str) -> Iterator[Served]:
    page = Served(home, *options)
    try:
        yield page
    except BaseException:
        page.running.send_signal(signal.SIGKILL)
        raise
    else:
        page.stop()
