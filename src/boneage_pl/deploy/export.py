"""The export command, with one writer per format."""

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf

from boneage_pl.deploy.export_module import ExportModule, PredictFn, model_metadata
from boneage_pl.deploy.model_card import write_model_card
from boneage_pl.deploy.onnx import (
    convert_to_float16,
    finish_onnx,
    needs_onnx,
    open_onnx,
    quantize_int8,
    write_onnx,
)
from boneage_pl.deploy.options import MODEL_CARD, ExportFormat, output_path
from boneage_pl.deploy.torch_export import open_program, write_program
from boneage_pl.deploy.verification_set import VerificationSet, build_verification_set
from boneage_pl.deploy.verify import (
    TABLE_HEAD,
    ExportCheck,
    assert_accuracy,
    assert_parity,
    check_export,
    megabytes,
    predict_images,
)
from boneage_pl.errors import BoneAgeError
from boneage_pl.prediction.predictor import BoneAgePredictor
from boneage_pl.training.safetensors_io import save_shared_weights
from boneage_pl.utils.files import atomic_write

log = logging.getLogger(__name__)


@dataclass
class ExportJob:
    """State of an export.

    Args:
        model: the loaded checkpoints.
        exported: the model as one module.
        reference: predictions of PyTorch in float32.
        verification: images for the checks.
        precision: dtype of the weights.
        interval_level: coverage of the prediction intervals.
        max_mae_increase: largest MAE increase, in months, that reduced precision may cause.
        trusted_config: see `BoneAgePredictor.load`.
        checks: checks done so far.
    """

    model: BoneAgePredictor
    exported: ExportModule
    reference: ExportCheck
    verification: VerificationSet
    precision: str
    interval_level: float
    max_mae_increase: float
    trusted_config: Any
    checks: list[ExportCheck]

    def check(self, name: str, path: Path, predict: PredictFn) -> ExportCheck:
        """Check a written file."""
        self.checks.append(check_export(name, predict, self.verification, megabytes(path)))
        return self.checks[-1]


def write_onnx_export(job: ExportJob, path: Path) -> None:
    """Write an ONNX file."""
    full = path if job.precision == "float32" else path.with_name(f"float32_{path.name}")
    write_onnx(job.exported, full)
    finish_onnx(full, model_metadata(job.model, job.interval_level, "float32"))
    exact = job.check("float32", full, open_onnx(full))
    assert_parity(exact, job.reference)
    if job.precision == "float32":
        return
    metadata = model_metadata(job.model, job.interval_level, job.precision)
    if job.precision == "float16":
        convert_to_float16(full, path)
        finish_onnx(path, metadata)
        assert_accuracy(job.check("float16", path, open_onnx(path)), exact, job.max_mae_increase)
        return
    exact_months = predict_images(
        open_onnx(full), job.verification.calibration, "predicting calibration images"
    )
    quantize_int8(full, path, job.verification.calibration, exact_months)
    finish_onnx(path, metadata)
    assert_accuracy(job.check("int8", path, open_onnx(path)), exact, job.max_mae_increase)


def write_torch_export(job: ExportJob, path: Path) -> None:
    """Write a `torch.export` program."""
    write_program(job.exported, path, model_metadata(job.model, job.interval_level, "float32"))
    assert_parity(job.check("float32", path, open_program(path)), job.reference)


def write_safetensors_export(job: ExportJob, path: Path) -> None:
    """Write weights with the checkpoint's metadata."""
    (member,) = job.model.members
    kind = torch.float16 if job.precision == "float16" else None
    statistics = member.ood_detector.to_dict() if member.ood_detector else None
    save_shared_weights(path, member.predictor.module.network.state_dict(), member.metadata, statistics, kind)
    reloaded = ExportModule(
        BoneAgePredictor.load(
            path, interval_level=job.interval_level, device="cpu", trusted_config=job.trusted_config
        )
    )
    check = job.check(job.precision, path, reloaded.predict)
    if kind:
        assert_accuracy(check, job.reference, job.max_mae_increase)
    else:
        assert_parity(check, job.reference)


WRITERS = {
    "onnx": write_onnx_export,
    "torch_export": write_torch_export,
    "safetensors": write_safetensors_export,
}


def export_model(config: DictConfig, kind: ExportFormat, paths: Sequence[Path]) -> Path:
    """Export the checkpoints at `paths` as `kind` and return the file.

    A file gets its final name only after it has been verified.

    Raises:
        BoneAgeError: unreadable checkpoint, missing extra or images, failed check, or full disk.
    """
    if kind.name == "onnx":
        needs_onnx()
    repeated = OmegaConf.to_container(config, resolve=False)
    model = BoneAgePredictor.load(
        paths, interval_level=config.interval_level, device="cpu", trusted_config=repeated
    )
    out = output_path(config, kind, paths[0], model.members[0].metadata.experiment)
    verification = None if kind.name == "model_card" else build_verification_set(config, model.members)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if verification is None:
            atomic_write(out, write_model_card(paths[0], model, config.interval_level))
        else:
            _export(config, kind, model, verification, out)
    except OSError as error:
        raise BoneAgeError(f"{out} cannot be written: {error.strerror or error}.") from error
    log.info("written\n  %s", "\n  ".join(str(file) for file in kind.files(out)))
    return out


def _export(
    config: DictConfig, kind: ExportFormat, model: BoneAgePredictor, verification: VerificationSet, out: Path
) -> None:
    exported = ExportModule(model)
    paths = [member.path for member in model.members]
    reference = check_export("PyTorch float32", exported.predict, verification, sum(map(megabytes, paths)))
    checks: list[ExportCheck] = []
    with tempfile.TemporaryDirectory(prefix=".export_", dir=out.parent) as folder:
        unverified = Path(folder) / out.name
        job = ExportJob(
            model,
            exported,
            reference,
            verification,
            precision=config.precision,
            interval_level=config.interval_level,
            max_mae_increase=config.max_mae_increase,
            trusted_config=OmegaConf.to_container(config, resolve=False),
            checks=checks,
        )
        try:
            WRITERS[kind.name](job, unverified)
        finally:  # the table of a rejected export is printed too
            rows = "\n".join(check.row(reference) for check in (reference, *checks))
            log.info("verified on %s, on the CPU\n%s\n%s", verification.description, TABLE_HEAD, rows)
        if MODEL_CARD in kind.extra_files:
            card = write_model_card(paths[0], model, config.interval_level, config.precision)
            atomic_write(unverified.with_name(MODEL_CARD), card)
        for file in reversed(kind.files(out)):  # the main file last
            (Path(folder) / file.name).replace(file)
    _report_checks(checks, reference, verification, model)


def _report_checks(
    checks: Sequence[ExportCheck],
    reference: ExportCheck,
    verification: VerificationSet,
    model: BoneAgePredictor,
) -> None:
    """Log the differences of the export from PyTorch."""
    for check in checks:
        difference = np.abs(check.months - reference.months)
        log.info(
            "%s differs from PyTorch by at most %.4f months, %.4f on average",
            check.name,
            difference.max(),
            difference.mean(),
        )
    if verification.stored is not None and verification.bone_age is not None:
        log.info(
            "MAE of the training on these images: %.3f months, in %s",
            float(np.abs(verification.stored - verification.bone_age).mean()),
            model.members[0].metadata.precision,
        )
