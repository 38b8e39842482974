"""Run one measurement in its own process, so that no side inherits the other's memory or settings.

    python -m benchmarks.run_measurement SIDE WHAT [option=value ...]

SIDE is `project` or `published`. Prints one line of JSON for `benchmarks/speed.py`.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.export_speed import inference_time
from benchmarks.inference_latency import first_prediction, many_predictions

Result = dict[str, float]


def cpu_seconds() -> float:
    """Return the processor time of this process and of its children that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def project_data(root: str, size: int, **options: Any) -> Any:
    from boneage_pl.data.datamodule import BoneAgeDataModule

    data = BoneAgeDataModule(root, image_size=size, **options)
    data.prepare_data()
    data.setup()
    return data


# The input pipeline, up to a flipped, normalized float batch [32, 3, H, W]


def input_pipeline(side: str, root: str, size: int, seconds: int) -> Result:
    from torch.utils.data import DataLoader

    from benchmarks.baseline_pipeline import Files
    from boneage_pl.data.transforms.compose import Compose
    from boneage_pl.data.transforms.geometric import RandomHorizontalFlip
    from boneage_pl.model.input_spec import InputSpec, Normalize
    from boneage_pl.utils.hardware import keep_freed_memory

    if side == "published":
        paths = sorted(Path(root).rglob("*.png"))
        loader: Any = DataLoader(Files(list(chain(*repeat(paths, 99))), size), 32, shuffle=True)
        batches = iter(loader)
    else:
        keep_freed_memory()  # as training on a CPU does
        data = project_data(root, size, cache=side != "streamed", samples_per_group=80, num_workers=0)
        serve = (batch for epoch in range(99) for batch in _epoch(data, epoch))
        flips, normalize = Compose([RandomHorizontalFlip()]), Normalize(InputSpec())
        batches = (normalize(flips(batch["image"], batch["key"])) for batch in serve)
    next(batches)
    begun, used, seen = time.perf_counter(), cpu_seconds(), 0
    while (wall := time.perf_counter() - begun) < seconds:
        batch = next(batches)
        image = batch[0] if side == "published" else batch
        assert image.shape[1:] == (3, size, size)
        seen += len(image)
    return {"cpu_ms_per_image": 1000 * (cpu_seconds() - used) / seen, "images_per_s": seen / wall}


def _epoch(data: Any, epoch: int) -> Iterable[Any]:
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    return loader


# Preparing, against decoding alone with the same library and number of cores


def prepare(side: str, root: str, size: int, cores: int) -> Result:
    from boneage_pl.data.cache.build import build_cache
    from boneage_pl.data.images.resize import ResizeSpec
    from boneage_pl.data.tables.load import read_table
    from boneage_pl.utils.processes import worker_pool

    table = read_table(Path(root))
    begun = time.perf_counter()
    if side == "published":
        with worker_pool(cores) as pool:
            for _ in pool.map(decode, table["path"], chunksize=4):
                pass
    else:
        with tempfile.TemporaryDirectory(dir=root) as folder:
            build_cache(table, Path(root), Path(folder) / "cache.npy", ResizeSpec(size), cores)
    return {"images_per_s": len(table) / (time.perf_counter() - begun)}


def decode(path: str) -> None:
    from PIL import Image

    Image.open(path).load()


# Training and inference


def training_step(side: str, root: str, size: int, batch: int, steps: int) -> Result:
    timed = published_steps if side == "published" else project_steps
    seconds, checkpoint = timed(root, size, batch, steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    rate = batch / float(np.median(seconds))
    return {"images_per_s": rate, "peak_gib": peak, "checkpoint_gb": checkpoint}


def published_steps(root: str, size: int, batch: int, steps: int) -> tuple[list[float], float]:
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader

    from benchmarks import baseline_pipeline
    from boneage_pl.model.inception import InceptionRegressor

    data = project_data(root, size, samples_per_group=40)
    images = [Image.fromarray(pixels) for pixels in data.read(data.split["id"].tolist())]
    needed = batch * (steps + 2)
    dataset = baseline_pipeline.Decoded(
        list(chain(*repeat(images, needed // len(images) + 1)))[:needed], size
    )
    loader = DataLoader(dataset, batch, shuffle=True, num_workers=2, drop_last=True)
    network = InceptionRegressor(size)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    seconds, begun = [], time.perf_counter()
    for served in loader:
        baseline_pipeline.step(network, optimizer, served, torch.device("cpu"))
        seconds.append(time.perf_counter() - begun)
        begun = time.perf_counter()
    state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
    return seconds[2:], _saved(partial(torch.save, state))


def project_steps(root: str, size: int, batch: int, steps: int) -> tuple[list[float], float]:
    import lightning as L
    import torch

    from boneage_pl.model.inception import InceptionRegressor
    from boneage_pl.model.lightning_module import BoneAgeModule
    from boneage_pl.utils.hardware import keep_freed_memory, resolve_precision

    class Clock(L.Callback):
        """Times steps from one batch's end to the next's, with loading and Lightning's overhead."""

        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_train_batch_end(self, *_: Any) -> None:
            self.ends.append(time.perf_counter())

    precision = resolve_precision("auto")
    keep_freed_memory()
    # enough samples per group for all steps
    samples = -(-batch * (steps + 3) // 20) * 4 // 3 + 4
    data = project_data(root, size, batch_size=batch, samples_per_group=samples)
    network = InceptionRegressor(size)
    module = BoneAgeModule(
        network, lambda network: torch.optim.Adam(network.parameters(), lr=0.01, fused=True)
    )
    clock = Clock()
    trainer = L.Trainer(
        accelerator="cpu",
        devices=1,
        precision=precision,
        max_steps=steps + 2,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        benchmark=True,
        callbacks=[clock],
    )
    trainer.fit(module, datamodule=data)
    return np.diff(clock.ends)[1:].tolist(), _saved(trainer.save_checkpoint)


def _saved(save: Callable[[str], None]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        save(f"{folder}/saved")
        return Path(folder, "saved").stat().st_size / 1e9


def inference(side: str, size: int, batch: int, steps: int) -> Result:
    import torch

    from boneage_pl.data.transforms.compose import Compose
    from boneage_pl.model.inception import InceptionRegressor
    from boneage_pl.model.inference import InferenceModule
    from boneage_pl.model.input_spec import InputSpec, Normalize
    from boneage_pl.utils.hardware import keep_freed_memory, resolve_precision

    torch.manual_seed(0)
    pixels = torch.randint(0, 256, (batch, 1, size, size), dtype=torch.uint8)
    male = torch.ones(batch)
    network = InceptionRegressor(size).eval()
    if side == "project":
        keep_freed_memory()
        reader = InferenceModule(network, Compose(), torch.nn.L1Loss()).to(memory_format=torch.channels_last)
        enabled = resolve_precision("auto") == "bf16-mixed"
        predict = lambda: reader(pixels, male)  # noqa: E731
    else:
        ready, enabled = Normalize(InputSpec())(pixels).contiguous(), False
        predict = lambda: network(ready, male)  # noqa: E731
    seconds = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
        for _ in range(steps + 2):
            begun = time.perf_counter()
            predict().sum().item()
            seconds.append(time.perf_counter() - begun)
    return {"images_per_s": batch / float(np.median(seconds[2:]))}


# Start of a command


def start_up(side: str, root: str) -> Result:
    """Time a command to its first line and its description of the training, or `import torch`."""
    begun = time.perf_counter()
    if side == "published":
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        seconds = time.perf_counter() - begun
        return {"first": seconds, "opening": seconds}
    options = ["+experiment=v1", "model.weights=null", f"data.root={root}", "data.image_size=107"]
    with tempfile.TemporaryDirectory() as outputs:
        command = [sys.executable, "-m", "boneage_pl", *options, f"output_dir={outputs}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout
            running.stdout.readline()
            first = time.perf_counter() - begun
            next(line for line in running.stdout if line.startswith("v1:"))
            opening = time.perf_counter() - begun
            running.kill()
    return {"first": first, "opening": opening}


WHATS: dict[str, Callable[..., Result]] = {
    "input": input_pipeline,
    "prepare": prepare,
    "step": training_step,
    "inference": inference,
    "start": start_up,
    "first_prediction": first_prediction,
    "many_predictions": many_predictions,
    "exported": inference_time,
}


def options_of(arguments: list[str]) -> Iterator[tuple[str, Any]]:
    for argument in arguments:
        key, value = argument.split("=", 1)
        yield key, int(value) if value.isdigit() else value


def main() -> None:
    side, what, *rest = sys.argv[1:]
    options = dict(options_of(rest))
    print(json.dumps(WHATS[what](side, **options)))


if __name__ == "__main__":
    main()
