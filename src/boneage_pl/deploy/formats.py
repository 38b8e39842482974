"""How each kind of export is written, and tried: what comes back wrong is refused."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from boneage_pl.deploy.exported import ExportModule, PredictFn, model_metadata
from boneage_pl.deploy.measured import (
    ExportCheck,
    assert_accuracy,
    assert_parity,
    check_export,
    mae_increase,
    megabytes,
    predict_images,
)
from boneage_pl.deploy.onnx_file import (
    NUM_FLOAT32_CONVS,
    convert_to_float16,
    open_onnx,
    quantize_int8,
    set_metadata,
    write_onnx,
)
from boneage_pl.deploy.torch_file import open_program, write_program
from boneage_pl.deploy.trial import VerificationSet
from boneage_pl.reading.model import BoneAgePredictor
from boneage_pl.training.safetensors_io import save_shared_weights


@dataclass
class ExportJob:
    """An export that is being made.

    Args:
        model: that is exported.
        exported: the same as one network.
        reference: what PyTorch answers in float32.
        verification: the images that everything is tried on.
        precision: of the numbers.
        level: of the intervals.
        max_mae_increase: months that a precision may cost.
        trusted_config: see `load`.
        checks: what has been tried so far.
    """

    model: BoneAgePredictor
    exported: ExportModule
    reference: ExportCheck
    verification: VerificationSet
    precision: str
    level: float
    max_mae_increase: float
    trusted_config: Any
    checks: list[ExportCheck]

    def check(self, name: str, path: Path, ask: PredictFn) -> ExportCheck:
        """Try what has been written."""
        self.checks.append(check_export(name, ask, self.verification, megabytes(path)))
        return self.checks[-1]


def write_onnx_export(job: ExportJob, path: Path) -> None:
    """Write an ONNX file."""
    whole = path if job.precision == "float32" else path.with_name(f"float32_{path.name}")
    write_onnx(job.exported, whole)
    set_metadata(whole, model_metadata(job.model, job.level, "float32"))
    exact = job.check("float32", whole, open_onnx(whole))
    assert_parity(exact, job.reference)
    if job.precision == "float32":
        return
    metadata = model_metadata(job.model, job.level, job.precision)
    if job.precision == "float16":
        convert_to_float16(whole, path)
        set_metadata(path, metadata)
        assert_accuracy(job.check("float16", path, open_onnx(path)), exact, job.max_mae_increase)
        return
    known = predict_images(open_onnx(whole), job.verification.calibration, "asking about what calibrates")
    for name, stem in {"int8": 0, f"int8 but {NUM_FLOAT32_CONVS} first": NUM_FLOAT32_CONVS}.items():
        quantize_int8(whole, path, job.verification.calibration, known, stem)
        set_metadata(path, metadata)
        found = job.check(name, path, open_onnx(path))
        if mae_increase(found, exact) <= job.max_mae_increase:
            return
    assert_accuracy(found, exact, job.max_mae_increase)


def write_torch_export(job: ExportJob, path: Path) -> None:
    """Write a program of PyTorch's."""
    write_program(job.exported, path, model_metadata(job.model, job.level, "float32"))
    assert_parity(job.check("float32", path, open_program(path)), job.reference)


def write_safetensors_export(job: ExportJob, path: Path) -> None:
    """Write weights to share, with their JSON file."""
    (member,) = job.model.members
    kind = torch.float16 if job.precision == "float16" else None
    known = member.ood_detector.to_dict() if member.ood_detector else None
    save_shared_weights(path, member.predictor.module.network.state_dict(), member.metadata, known, kind)
    again = ExportModule(
        BoneAgePredictor.load(path, level=job.level, device="cpu", repeated=job.trusted_config)
    )
    found = job.check(job.precision, path, again.predict)
    if kind:
        assert_accuracy(found, job.reference, job.max_mae_increase)
    else:
        assert_parity(found, job.reference)


WRITERS = {"onnx": write_onnx_export, "torch_export": write_torch_export, "weights": write_safetensors_export}
