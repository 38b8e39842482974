"""Time a trained network on the CPU: in PyTorch, in this project's `predict`, and exported."""

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.inference_latency import write_checkpoint

SIDES = {
    "eager": "PyTorch, float32",
    "project": "`predict` (bfloat16 where native)",
    "program": "`format=torch_export`",
    "compiled": "`format=torch_export`, then `torch.compile`",
    "onnx": "`format=onnx`",
    "float16": "`format=onnx precision=float16`",
    "int8": "`format=onnx precision=int8`",
}
CALIBRATING = 20  # phantoms; enough, because only the speed matters here


def hands(size: int, count: int) -> Any:
    """Return a batch of phantoms."""
    from boneage_pl.data.phantom import render_radiograph
    from boneage_pl.deploy.verification_set import ImageBatch

    pixels = [
        np.asarray(render_radiograph(10 * k, k % 2 == 0, seed=0, index=k, size=size))
        for k in range(1, count + 1)
    ]
    return ImageBatch(np.stack(pixels)[:, None], (np.arange(count) % 2).astype(np.float32))


def write_exports(folder: Path, size: int) -> Path:
    """Write all exports of a checkpoint into a folder and return that."""
    from boneage_pl.deploy.export_module import ExportModule
    from boneage_pl.deploy.onnx import convert_to_float16, open_onnx, quantize_int8, write_onnx
    from boneage_pl.deploy.torch_export import write_program
    from boneage_pl.deploy.verify import predict_images
    from boneage_pl.prediction.predictor import BoneAgePredictor

    ckpt = write_checkpoint(folder, size)
    to = folder / f"exports_{size}"
    to.mkdir()
    (to / "x.ckpt").hardlink_to(ckpt)
    model = ExportModule(BoneAgePredictor.load(ckpt, device="cpu"))
    write_program(model, to / "program.pt2", {})
    write_onnx(model, to / "onnx.onnx")
    convert_to_float16(to / "onnx.onnx", to / "float16.onnx")
    shown = hands(size, CALIBRATING)
    exact = predict_images(open_onnx(to / "onnx.onnx"), shown, "calibrating")
    quantize_int8(to / "onnx.onnx", to / "int8.onnx", shown, exact)
    return to


def inference_time(side: str, folder: str, size: int, batch: int) -> dict[str, float]:
    """Measure the milliseconds of a batch."""
    import torch

    from boneage_pl.deploy.export_module import ExportModule
    from boneage_pl.deploy.onnx import open_onnx
    from boneage_pl.deploy.torch_export import open_program
    from boneage_pl.deploy.verify import seconds_per_batch
    from boneage_pl.prediction.predictor import BoneAgePredictor
    from boneage_pl.utils.hardware import keep_freed_memory

    at = Path(folder)
    if side in ("eager", "project"):
        model = BoneAgePredictor.load(at / "x.ckpt", device="cpu")
        if side == "project":
            keep_freed_memory()
            inference = model.members[0].predictor
            predict = lambda image, male: inference(image[:, 0], male > 0.5).months  # noqa: E731
        else:
            predict = ExportModule(model).to(memory_format=torch.contiguous_format).predict
    elif side == "program":
        predict = open_program(at / "program.pt2")
    elif side == "compiled":
        compiled = torch.compile(torch.export.load(at / "program.pt2").module())

        def predict(image: Any, male: Any) -> Any:
            with torch.inference_mode():
                return compiled(torch.from_numpy(image), torch.from_numpy(male)).numpy()
    else:
        predict = open_onnx(at / f"{side}.onnx")
    images = hands(size, batch)
    return {"ms": 1000 * min(seconds_per_batch(predict, images, batch) for _ in range(3))}
