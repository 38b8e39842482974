"""Benchmark the page and the API.

    python -m benchmarks.page [--sizes 128 500]

Serves networks trained for one step with `boneage_pl.app` and calls them by HTTP with a full-size phantom.
Prints two Markdown tables: the page, from upload to prediction with overlays; and the API with 1, 4 and 16
clients, beside `BoneAgePredictor` alone.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from queue import SimpleQueue
from statistics import median, quantiles

import httpx

from benchmarks.inference_latency import write_checkpoint
from benchmarks.speed import draw_original, machine
from boneage_pl import BoneAgePredictor
from boneage_pl.evaluation.templating import format_table
from boneage_pl.prediction.types import PredictionRequest
from tests.webapp.http_client import Caller, free_port

ROUNDS = 10
PEOPLE = 20
CLIENTS = (1, 4, 16)
CALLS = 192  # of the API, with each number of clients


def seconds(do: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    begun = time.perf_counter()
    do()
    return time.perf_counter() - begun


@contextmanager
def served(ckpt: Path) -> Iterator[tuple[str, subprocess.Popen[str], float]]:
    """Serve a checkpoint; yield its URL, its process and the seconds until it started."""
    port = free_port()
    begun = time.perf_counter()
    command = [sys.executable, "-m", "boneage_pl.app", f"ckpt={ckpt}", f"port={port}"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout
        while "Ctrl-C" not in server.stdout.readline():
            assert server.poll() is None
        yield f"http://127.0.0.1:{port}", server, time.perf_counter() - begun
    finally:
        server.send_signal(signal.SIGINT)
        server.wait()


def page_row(ckpt: Path, size: int, image: bytes) -> list[str]:
    """Return the row of the page."""
    with served(ckpt) as (url, server, started):
        callers = [Caller(url) for _ in range(PEOPLE)]

        def predict(caller: Caller) -> None:
            assert "bone age <b>" in caller.one("hand.png", image)

        first = seconds(lambda: predict(callers[0]))
        each = [seconds(lambda: predict(callers[0])) for _ in range(ROUNDS)]
        with ThreadPoolExecutor(PEOPLE) as people:
            crowd = seconds(lambda: list(people.map(predict, callers)))
        memory = int(Path(f"/proc/{server.pid}/status").read_text().partition("VmRSS:")[2].split()[0]) / 2**20
    one = f"{median(each):.2f} s (the first {first:.2f})"
    return [
        f"{size} px",
        f"{started:.1f} s",
        one,
        f"{max(each):.2f} s",
        f"{crowd:.1f} s",
        f"{memory:.1f} GiB",
    ]


def api_rows(ckpt: Path, size: int, image: bytes) -> Iterator[list[str]]:
    """Yield the rows of the API, the predictor alone first."""
    model = BoneAgePredictor.load(ckpt)
    requests = [PredictionRequest(image, False) for _ in range(CALLS)]
    list(model.predict_iter(requests[:4]))
    alone = CALLS / seconds(lambda: list(model.predict_iter(requests)))
    yield [f"{size} px", "predict, in batches", "–", "–", f"{alone:.1f}", "1"]
    one = [seconds(lambda: list(model.predict_iter(requests[:1]))) for _ in range(ROUNDS)]
    yield [f"{size} px", "predict, one by one", f"{median(one):.3f} s", "–", f"{1 / median(one):.1f}", "–"]
    with served(ckpt) as (url, *_):
        form = httpx.Request("POST", url, files={"files": ("hand.png", image)}, data={"sex": "F"})
        body, kind = form.read(), {"Content-Type": form.headers["content-type"]}
        connections: SimpleQueue[HTTPConnection] = SimpleQueue()
        for _ in range(max(CLIENTS)):
            connections.put(HTTPConnection(url.removeprefix("http://")))

        def call(_: int) -> float:
            connection = connections.get()
            begun = time.perf_counter()
            connection.request("POST", "/api/v1/predict", body, kind)
            response = connection.getresponse()
            assert response.read()
            assert response.status == 200
            connections.put(connection)
            return time.perf_counter() - begun

        for clients in CLIENTS:
            with ThreadPoolExecutor(clients) as people:
                list(people.map(call, range(2 * clients)))
                begun = time.perf_counter()
                each = list(people.map(call, range(CALLS)))
                rate = CALLS / (time.perf_counter() - begun)
            p95 = quantiles(each, n=20)[-1]
            shown = [f"{median(each):.3f} s", f"{p95:.3f} s", f"{rate:.1f}", f"{rate / alone:.2f}"]
            yield [f"{size} px", f"API, {clients} clients", *shown]


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
        image = (folder / "hand.png").read_bytes()
        print(f"{machine()}\n")
        page = [
            [
                "image size",
                "start",
                "one prediction",
                f"the slowest of {ROUNDS}",
                f"{PEOPLE} at once",
                "memory",
            ]
        ]
        api = [["image size", "", "p50", "p95", "images/s", "of predict's"]]
        for size in options.sizes:
            ckpt = write_checkpoint(folder, size)
            page.append(page_row(ckpt, size, image))
            api += api_rows(ckpt, size, image)
        print(format_table(page, markdown=True), format_table(api, markdown=True), sep="\n\n")


if __name__ == "__main__":
    main()
