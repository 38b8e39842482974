"""Benchmark training and prediction on a GPU: `make gpu`.

    python -m benchmarks.gpu [--minutes 8] [--save docs/records] [--only ROW …]
    python -m benchmarks.gpu --rehearse

Each row runs in its own process with a time limit, the most important first; gpu_<device>.json and .md are
written after each, so an interrupted run is recorded too. No radiographs are needed: trainings use noise,
predictions phantoms. `--rehearse` runs all rows on the CPU at tiny sizes; its numbers mean nothing.

Training rows run `python -m boneage_pl +experiment=…` with the callback `Meter`. The loops that they are
compared with have their batch on the device.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import baseline_pipeline, inference_latency, speed
from benchmarks.run_measurement import project_data
from experiments.save_measurement import save_measurement

Numbers = dict[str, float]


@dataclass
class Row:
    """A measurement.

    Args:
        name: shown in the table.
        what: function of `ROWS`.
        options: arguments of the function.
        seconds: time limit.
    """

    name: str
    what: str
    options: dict[str, Any] = field(default_factory=dict)
    seconds: int = 60


def training(experiment: str, size: int, *also: str, seconds: int = 60) -> Row:
    """Return a training row; `size` in pixels."""
    name = " ".join([experiment, f"{size} px", *also])
    return Row(name, "train", {"experiment": experiment, "size": size, "also": also}, seconds)


def rows() -> Iterator[Row]:
    """Yield all rows, the most important first."""
    graphs = "compile=reduce-overhead"
    fine = ("data.batch_size=16", "optimizer.layer_decay=0.91")  # v3_fine, without its ckpt=
    at_128 = "transforms.train.size.size=128"
    yield Row("bf16 matrix peak", "peak")
    yield training("v1", 128)
    yield training("v1", 500)
    yield training("v3", 256, at_128)
    for size in (128, 500):
        name = f"torchvision's Inception, AMP, channels-last, {size} px"
        yield Row(name, "loop", {"size": size, "amp": True})
        yield Row(f"plain float32 loop, {size} px", "loop", {"size": size, "amp": False})
    yield training("v1", 500, graphs, seconds=180)
    yield training("v1", 128, graphs, seconds=180)
    yield training("v3", 256, at_128, graphs, seconds=180)
    yield Row("predict 500 full-size PNGs, 500 px", "predict", {"size": 500, "count": 500}, 120)
    for size in (128, 500):
        for on_device in (True, False):
            name = f"loader, {size} px, data.on_device={str(on_device).lower()}"
            yield Row(name, "loader", {"size": size, "on_device": on_device})
    for size in (128, 500):
        yield training("v1", size, "data.batch_size=128", "data.samples_per_group=480", seconds=90)
    yield training("v1", 128, "data.on_device=false")
    yield training("v3", 256)
    for size in (256, 448):
        yield training("v3", size, *fine, "transforms.train.size.size=null")
    yield training("v1", 128, "compile=true", seconds=150)
    yield training("v3", 448, *fine, "transforms.train.size.size=null", graphs, seconds=150)
    yield training("v1", 128, "trainer.precision=32")


def rehearsed(row: Row) -> Row:
    """Return a row that a CPU can run: at 107 px, not compiled."""
    small = {"size": 107, "count": 64}
    options = {key: small.get(key, value) for key, value in row.options.items()}
    if row.what == "train":
        batch = [] if any("batch_size" in one for one in options["also"]) else ["data.batch_size=8"]
        large = ("compile", "data.samples_per_group")
        also = [
            re.sub("batch_size=.*", "batch_size=8", one)
            for one in options["also"]
            if not one.startswith(large)
        ]
        options["also"] = [*also, *batch]
    return Row(row.name, row.what, options, 600)


# Trainings


def train(folder: Path, device: str, experiment: str, size: int, also: list[str]) -> Numbers:
    """Train on noise and return what `Meter` measured."""
    cuda = device == "cuda"
    speed.write_noise(folder / "noise", 4400 if cuda else 100)
    steps = "" if cuda else ", warm: 1, timed: 1, profiled: 1, watched: 1"
    options = [f"+experiment={experiment}", f"data.root={folder / 'noise'}", f"data.image_size={size}"]
    options += ["model.weights=null", f"trainer.accelerator={device}", "trainer.max_epochs=3", *also]
    options += [
        f"+callbacks.meter={{_target_: benchmarks.meter.Meter, out: '{folder / 'meter.json'}'{steps}}}"
    ]
    options += [f"hydra.run.dir={folder / 'run'}", f"output_dir={folder}"]
    options += [] if cuda else ["data.samples_per_group=4", "trainer.limit_train_batches=5"]
    subprocess.run([sys.executable, "-m", "boneage_pl", *options], check=True, stdout=sys.stderr)
    found: Numbers = json.loads((folder / "meter.json").read_text())
    if experiment == "v1":
        found["tflops"] = 3 * flops(size) * found["images_per_s"] / 1e12  # backward is twice forward
    return found


def flops(size: int) -> int:
    """Return the floating-point operations of the published network's forward pass on one image."""
    from boneage_pl.model.inception import InceptionRegressor

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        InceptionRegressor(size).eval()(torch.zeros(1, 3, size, size), torch.zeros(1))
    return int(counter.get_total_flops())


# Baselines, loader, prediction


def loop(_folder: Path, device: str, size: int, amp: bool) -> Numbers:
    """Time a bare training loop: the published network in float32, or torchvision's Inception in bfloat16."""
    from torchvision.models import inception_v3

    from boneage_pl.model.inception import InceptionRegressor

    image = torch.randn(32 if device == "cuda" else 4, 3, size, size, device=device)
    ones = torch.ones(len(image), device=device)
    if amp:
        network: nn.Module = inception_v3(aux_logits=False, num_classes=1, init_weights=False)
        network, image = (part.to(device, memory_format=torch.channels_last) for part in (network, image))  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(network.parameters(), fused=True)

        def step() -> None:
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16):
                output = network(image)
            F.l1_loss(output.float().squeeze(1), ones).backward()
            optimizer.step()
    else:
        network = InceptionRegressor(size).to(device)
        plain = torch.optim.Adam(network.parameters())

        def step() -> None:
            baseline_pipeline.step(network, plain, (image, ones, ones), torch.device(device))

    finish = torch.cuda.synchronize if device == "cuda" else lambda: None
    torch.backends.cudnn.benchmark = True
    warm, steps = (10, 30) if device == "cuda" else (1, 1)
    for count in (warm, steps):
        finish()
        begun = time.perf_counter()
        for _ in range(count):
            step()
        finish()
    seconds = (time.perf_counter() - begun) / steps
    return {"images_per_s": len(image) / seconds, "step_ms": 1000 * seconds}


def loader(folder: Path, device: str, size: int, on_device: bool) -> Numbers:
    """Measure the images/s that reach the device, in the second epoch."""
    speed.write_noise(folder, 4400 if device == "cuda" else 100)
    data = project_data(
        str(folder), size, samples_per_group=400 if device == "cuda" else 4, on_device=on_device
    )
    data.trainer = L.Trainer(accelerator=device, devices=1, logger=False, enable_checkpointing=False)
    place = data.trainer.strategy.root_device
    batches = data.train_dataloader()
    for _ in range(2):
        begun, seen = time.perf_counter(), 0
        for batch in batches:
            seen += len(data.transfer_batch_to_device(batch, place, 0)["image"])
        if device == "cuda":
            torch.cuda.synchronize()
    return {"images_per_s": seen / (time.perf_counter() - begun)}


def predict(folder: Path, _device: str, size: int, count: int) -> Numbers:
    """Predict full-size files; compare with decoding alone and the network alone."""
    speed.write_originals(folder / "originals")
    ckpt = str(inference_latency.write_checkpoint(folder, size))
    options = {"ckpt": ckpt, "root": str(folder / "originals"), "count": count}
    rates = {
        s: inference_latency.many_predictions(s, **options)["images_per_s"]
        for s in ("network", "decode", "project")
    }
    slower = min(rates["network"], rates["decode"])
    return {"images_per_s": rates["project"], "of_slower": rates["project"] / slower, **rates}


def peak(_folder: Path, device: str) -> Numbers:
    """Measure the peak rate of bfloat16 matrix products."""
    cuda, best = device == "cuda", 0.0
    finish = torch.cuda.synchronize if cuda else lambda: None
    for n in (4096, 8192, 16384) if cuda else (256,):
        a, b = (torch.randn(n, n, device=device, dtype=torch.bfloat16) for _ in range(2))
        for _ in range(12):
            finish()
            begun = time.perf_counter()
            torch.mm(a, b)
            finish()
            best = max(best, 2 * n**3 / (time.perf_counter() - begun))
    return {"tflops": best / 1e12}


ROWS: dict[str, Callable[..., Numbers]] = {one.__name__: one for one in (train, loop, loader, predict, peak)}

# Columns that are meaningful on a CPU
REHEARSED = ("name", "what", "took_s", "synchronizations", "synchronized", "error")

# The table


def table(record: dict[str, Any]) -> str:
    """Return a record as a Markdown table."""
    found = record["rows"]
    most = next((row["tflops"] for row in found if row["what"] == "peak" and "tflops" in row), None)
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "row": lambda row: row["name"],
        "images/s": lambda row: f"{row['images_per_s']:,.0f}",
        "step": lambda row: f"{row['step_ms']:.1f} ms",
        "epoch": lambda row: f"{row['epoch_s']:.1f} s",
        "first step": lambda row: f"{row['first_step_s']:.0f} s",
        "transforms": lambda row: f"{row['transforms_ms']:.1f} ms",
        "in kernels": lambda row: f"{row['kernels_share']:.0%}",
        "of the matrix peak": lambda row: f"{row['tflops'] / most:.0%}" if row["what"] == "train" else "",
        "memory": lambda row: f"{row['peak_gb']:.1f} GB",
        "of the slower alone": lambda row: f"{row['of_slower']:.2f} ×",
        "synchronizations": lambda row: f"{row['synchronizations']:g}",
    }
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    for row in found:
        cells = [_cell(show, row) for show in columns.values()]
        cells[1] = row.get("error", cells[1] or "ran")
        lines.append("| " + " | ".join(cells) + " |")
    heading = f"{record['device']}, {record['date']}, torch {torch.__version__}"
    matrix = f"; bf16 matrix peak {most:.0f} TFLOP/s" if most else ""
    return f"{heading}{matrix}\n\n" + "\n".join(lines) + "\n"


def _cell(show: Callable[[dict[str, Any]], str], row: dict[str, Any]) -> str:
    try:
        return show(row)
    except (KeyError, TypeError):
        return ""


def run_row(row: Row, device: str, seconds: float) -> dict[str, Any]:
    """Run a row in its own process, with a time limit; return its numbers or its error."""
    folder = tempfile.TemporaryDirectory()  # created here, because a killed process does not remove it
    job = json.dumps({**asdict(row), "device": device, "folder": folder.name})
    begun = time.perf_counter()
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.gpu", "--row", job]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # start_new_session: a training that the row has started is stopped with it
    with folder, subprocess.Popen(command, start_new_session=True, **pipes) as running:
        try:
            printed, errors = running.communicate(timeout=seconds)
            found = json.loads(printed.splitlines()[-1]) if running.returncode == 0 else _failed(errors)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            found = {"error": f"stopped after {seconds:.0f} s"}
    return {**asdict(row), **found, "took_s": round(time.perf_counter() - begun, 1)}


def _failed(text: str) -> dict[str, str]:
    return {"error": (text.strip().splitlines() or ["failed"])[-1][:200], "stderr": text[-2000:]}


def main() -> None:
    """Run the rows until the time is up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--save", type=Path, default=Path("docs/records"), help="folder of the record")
    parser.add_argument("--only", nargs="+", default=[""], help="prefixes of the rows' names")
    parser.add_argument("--rehearse", action="store_true", help="run all rows on the CPU at tiny sizes")
    parser.add_argument("--row", type=json.loads, help="run this row in this process and print JSON")
    options = parser.parse_args()
    if options.row:
        given = options.row
        measure = ROWS[given["what"]]
        print(json.dumps(measure(Path(given["folder"]), given["device"], **given["options"])))
        return
    if not options.rehearse and not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU here. --rehearse runs the rows on the CPU, at tiny sizes.")
    name = "rehearsal on a CPU: no numbers" if options.rehearse else torch.cuda.get_device_name()
    record: dict[str, Any] = {"device": name, "date": time.strftime("%Y-%m-%d"), "rows": []}
    stem = "gpu_rehearsal" if options.rehearse else "gpu_" + re.sub(r"\W+", "_", name)
    until = time.monotonic() + 60 * options.minutes
    for row in rows():
        left = until - time.monotonic()
        if left < 10 or not row.name.startswith(tuple(options.only)):
            continue
        if options.rehearse:
            found = run_row(rehearsed(row), "cpu", min(left, 600))
            record["rows"].append({key: found[key] for key in REHEARSED if key in found})
        else:
            record["rows"].append(run_row(row, "cuda", min(left, row.seconds)))
        save_measurement(options.save / f"{stem}.json", record)
        (options.save / f"{stem}.md").write_text(table(record))
        print(table(record).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
