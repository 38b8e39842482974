"""How long the page lets people wait, from the upload to the answer with its overlays.

    python -m benchmarks.page [--sizes 128 500]

Serves networks of one step (their weights are of no account here) as the command does, and asks them by HTTP
about a radiograph as large as the originals: one by one, and twenty at once. Prints a table in Markdown.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

from benchmarks.inference_latency import write_checkpoint
from benchmarks.speed import draw_original, machine
from tests.webapp.http_client import Caller, free_port

ROUNDS = 10
PEOPLE = 20


def seconds(do: Callable[[], object]) -> float:
    """Return how long it takes."""
    begun = time.perf_counter()
    do()
    return time.perf_counter() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[128, 500])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        draw_original((folder / "hand.png", 120, True, 1))
        picture = (folder / "hand.png").read_bytes()
        print(f"{machine()}\n")
        print(f"| image size | start | one answer | the slowest of {ROUNDS} | {PEOPLE} at once | memory |")
        print("| --- | --- | --- | --- | --- | --- |", flush=True)
        for size in options.sizes:
            print(row(write_checkpoint(folder, size), size, picture), flush=True)


def row(ckpt: Path, size: int, picture: bytes) -> str:
    """Serve a checkpoint, ask it, and return the table's row."""
    port = free_port()
    begun = time.perf_counter()
    command = [sys.executable, "-m", "boneage_pl.app", f"ckpt={ckpt}", f"port={port}"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        while "Ctrl-C" not in server.stdout.readline():
            assert server.poll() is None
        started = time.perf_counter() - begun
        callers = [Caller(f"http://127.0.0.1:{port}") for _ in range(PEOPLE)]

        def ask(caller: Caller) -> None:
            assert "bone age <b>" in caller.one("hand.png", picture)

        first = seconds(lambda: ask(callers[0]))
        each = [seconds(lambda: ask(callers[0])) for _ in range(ROUNDS)]
        with ThreadPoolExecutor(PEOPLE) as people:
            crowd = seconds(lambda: list(people.map(ask, callers)))
        memory = int(Path(f"/proc/{server.pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 2**20
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()
    return (
        f"| {size} px | {started:.1f} s | {median(each):.2f} s (the first {first:.2f}) | {max(each):.2f} s"
        f" | {crowd:.1f} s | {memory:.1f} GiB |"
    )


if __name__ == "__main__":
    main()
