"""Time a first prediction from the start of its process, and the prediction of many files."""

import subprocess
import sys
import time
from pathlib import Path

import numpy as np

BARE = """
import sys, torch, torchvision
state = torch.load(sys.argv[1], map_location="cpu", weights_only=True, mmap=True)["state_dict"]
weights = {name: value.clone() for name, value in state.items()}  # read, not just mapped
"""


def write_checkpoint(folder: Path, size: int) -> Path:
    """Train a network of this size for one step, if there is none, and return its checkpoint."""
    run = folder / f"run_{size}"
    ckpt = run / "checkpoints" / "best.ckpt"
    if ckpt.exists():
        return ckpt
    command = [
        *(sys.executable, "-m", "boneage_pl", "+experiment=v1", "data=phantom", f"data.root={folder}/small"),
        *("data.phantom.count=400", "data.phantom.size=160", f"data.image_size={size}"),
        *("data.samples_per_group=16", "data.batch_size=16", "trainer.max_epochs=1"),
        *("+trainer.limit_train_batches=1", f"output_dir={folder}/outputs", f"hydra.run.dir={run}"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return ckpt


def first_prediction(side: str, ckpt: str, image: str) -> dict[str, float]:
    """Time a process until it prints a prediction, or has loaded torch, torchvision and the weights."""
    command = [sys.executable, "-c", BARE, ckpt]
    if side == "project":
        command = [sys.executable, "-m", "boneage_pl.predict", f"ckpt={ckpt}", f"images={image}", "sex=F"]
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return {"seconds": time.perf_counter() - begun}


def many_predictions(side: str, ckpt: str, root: str, count: int) -> dict[str, float]:
    """Measure images/s of files: `decode` without the network, `network` without files, or `project`."""
    from boneage_pl.prediction.inputs import expand_inputs
    from boneage_pl.prediction.loading import load_images
    from boneage_pl.prediction.predictor import BoneAgePredictor
    from boneage_pl.utils.hardware import keep_freed_memory, on_gpu
    from boneage_pl.utils.processes import cores

    if not on_gpu("auto"):
        keep_freed_memory()  # as the command does
    model = BoneAgePredictor.load(ckpt)
    files = [str(path) for path in sorted(Path(root).rglob("*.png"))[:count]]
    assert len(files) == count
    if side == "network":
        ready = list(load_images(expand_inputs(files[:64], "F"), model.resize_specs, [], cores()))
        pixels = np.stack([one.pixels[model.resize_specs[0]] for one in ready])
        sizes = [(1600, 2080)] * 32
        member = model.members[0]
        begun = time.perf_counter()
        for at in range(0, count, 32):
            member.predict_batch(pixels[at % 64 : at % 64 + 32], [False] * 32, sizes)
    elif side == "decode":
        begun = time.perf_counter()
        for _ in load_images(expand_inputs(files, "F"), model.resize_specs, [], cores()):
            pass
    else:
        begun = time.perf_counter()
        assert all(
            reading.prediction.months is not None for reading in model.predict_iter(expand_inputs(files, "F"))
        )
    return {"images_per_s": count / (time.perf_counter() - begun)}
