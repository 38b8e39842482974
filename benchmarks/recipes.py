"""What a training step of each recipe costs, and how much of it its augmentations.

    python -m benchmarks.recipes [--of v1:128 v3:128 v1:448 v3_fine:256] [--device cpu] [--also OPTION …]

Each in a process of its own, with the experiment's batches of pictures of noise, at random weights. Prints a
table in Markdown.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from contextlib import nullcontext
from statistics import median
from types import SimpleNamespace
from typing import Any

WARM = 2  # steps that are not counted


def measured(experiment: str, size: int, steps: int, device: str, also: list[str]) -> dict[str, Any]:
    """Return images a second, the augmentations' share of a step, and the highest memory in GiB."""
    import torch
    from hydra import compose, initialize_config_dir

    from boneage_pl.cli.building import built
    from boneage_pl.cli.conf_path import CONF
    from boneage_pl.data.batch import Batch
    from boneage_pl.machine.hardware import keep_freed_memory, resolve_precision, set_float32_arithmetic
    from boneage_pl.model.answer import loss_of
    from boneage_pl.model.head import is_depthwise
    from boneage_pl.model.inference import MIXED
    from boneage_pl.run.parts import make_module

    with initialize_config_dir(str(CONF), version_base="1.3"):
        options = [
            f"+experiment={experiment}",
            "data=phantom",
            f"data.image_size={size}",
            "model.weights=null",
            *also,
        ]
        cfg = compose("config", overrides=options)
    network = built(cfg.model, "model")
    precision = resolve_precision(cfg.trainer.precision, device, depthwise=is_depthwise(network))
    set_float32_arithmetic(precision)
    if device == "cpu":
        keep_freed_memory()
    module = make_module(cfg, network, precision, SimpleNamespace(steps=lambda *_: 100))  # type: ignore[arg-type]
    module = module.to(device).train()
    optimizer, _ = module.build_optimizer()
    finish = torch.cuda.synchronize if device == "cuda" else lambda: None
    mixed = MIXED.get(precision)
    count, whole, augmenting = cfg.data.batch_size, [], []
    for step in range(WARM + steps):
        rows = torch.arange(count) + step * count
        batch = Batch(
            image=torch.randint(0, 256, (count, 1, size, size), dtype=torch.uint8),
            key=torch.randint(0, 2**53, (count,)),
            male=(rows % 2).float(),
            bone_age=(rows % 228).float(),
            row=rows,
        )
        batch = Batch(**{key: value.to(device) for key, value in batch.items()})  # type: ignore[typeddict-item, attr-defined]
        finish()
        begun = time.perf_counter()
        seen = module.seen(batch, module.train_transforms)
        finish()
        augmenting.append(time.perf_counter() - begun)
        with torch.autocast(device, mixed) if mixed else nullcontext():
            loss = loss_of(module(seen["image"], seen["male"]), seen["bone_age"], module.loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        finish()
        whole.append(time.perf_counter() - begun)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**30
    one, all_of_it = median(augmenting[WARM:]), median(whole[WARM:])
    return {
        "batch": count,
        "precision": precision,
        "images_per_s": count / all_of_it,
        "augmenting_ms": 1000 * one,
        "share": one / all_of_it,
        "peak_gib": peak,
    }


def main() -> None:
    """Measure each in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = ["v1:128", "v3:128", "v1:448", "v3_fine:256"]
    parser.add_argument("--of", nargs="+", default=usual, help="experiments, each at a size in pixels")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--also", nargs="+", default=[], help="options of each: trainer.precision=bf16-mixed")
    parser.add_argument("--here", action="store_true", help="measure the one that is named, print JSON")
    options = parser.parse_args()
    if options.here:
        experiment, _, size = options.of[0].partition(":")
        print(json.dumps(measured(experiment, int(size), options.steps, options.device, options.also)))
        return
    print("| experiment | px | batch | precision | images/s | augmentations a batch | of the step | memory |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for one in options.of:
        asked = ["--of", one, "--steps", str(options.steps), "--device", options.device]
        asked += ["--also", *options.also] if options.also else []
        command = [sys.executable, "-m", "benchmarks.recipes", "--here", *asked]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        cells = [*one.split(":"), found["batch"], found["precision"], f"{found['images_per_s']:.1f}"]
        cells += [f"{found['augmenting_ms']:.0f} ms", f"{found['share']:.1%}", f"{found['peak_gib']:.1f} GiB"]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)


if __name__ == "__main__":
    main()
