"""The export command, with one writer a format."""

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
    NUM_FLOAT32_CONVS,
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
    mae_increase,
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
    """An export that is being made.

    Args:
        model: that is exported.
        exported: the same as one network.
        reference: what PyTorch predicts in float32.
        verification: the images that everything is tried on.
        precision: of the numbers.
        interval_level: of the intervals.
        max_mae_increase: months that a precision may cost.
        trusted_config: see `BoneAgePredictor.load`.
        checks: what has been tried so far.
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
        """Try what has been written."""
        self.checks.append(check_export(name, predict, self.verification, megabytes(path)))
        return self.checks[-1]


def write_onnx_export(job: ExportJob, path: Path) -> None:
    """Write an ONNX file."""
    whole = path if job.precision == "float32" else path.with_name(f"float32_{path.name}")
    write_onnx(job.exported, whole)
    finish_onnx(whole, model_metadata(job.model, job.interval_level, "float32"))
    exact = job.check("float32", whole, open_onnx(whole))
    assert_parity(exact, job.reference)
    if job.precision == "float32":
        return
    metadata = model_metadata(job.model, job.interval_level, job.precision)
    if job.precision == "float16":
        convert_to_float16(whole, path)
        finish_onnx(path, metadata)
        assert_accuracy(job.check("float16", path, open_onnx(path)), exact, job.max_mae_increase)
        return
    known = predict_images(open_onnx(whole), job.verification.calibration, "predicting what calibrates")
    for name, stem in {"int8": 0, f"int8 but {NUM_FLOAT32_CONVS} first": NUM_FLOAT32_CONVS}.items():
        quantize_int8(whole, path, job.verification.calibration, known, stem)
        finish_onnx(path, metadata)
        check = job.check(name, path, open_onnx(path))
        if mae_increase(check, exact) <= job.max_mae_increase:
            return
    assert_accuracy(check, exact, job.max_mae_increase)


def write_torch_export(job: ExportJob, path: Path) -> None:
    """Write a program of PyTorch's."""
    write_program(job.exported, path, model_metadata(job.model, job.interval_level, "float32"))
    assert_parity(job.check("float32", path, open_program(path)), job.reference)


def write_safetensors_export(job: ExportJob, path: Path) -> None:
    """Write weights to share, with the checkpoint's metadata."""
    (member,) = job.model.members
    kind = torch.float16 if job.precision == "float16" else None
    known = member.ood_detector.to_dict() if member.ood_detector else None
    save_shared_weights(path, member.predictor.module.network.state_dict(), member.metadata, known, kind)
    again = ExportModule(
        BoneAgePredictor.load(
            path, interval_level=job.interval_level, device="cpu", trusted_config=job.trusted_config
        )
    )
    check = job.check(job.precision, path, again.predict)
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
    """Export the checkpoints at `paths` as `kind`, and return the file.

    A file gets its final name only after it has been verified.

    Raises:
        BoneAgeError: a checkpoint that cannot be read, an extra that is missing, images that are not there,
            predictions that are not the checkpoint's, or a disk that is full.
    """
    if kind.name == "onnx":
        needs_onnx()
    repeated = OmegaConf.to_container(config, resolve=False)
    model = BoneAgePredictor.load(
        paths, interval_level=config.interval_level, device="cpu", trusted_config=repeated
    )
    out = output_path(config, kind, paths[0], model.members[0].metadata.experiment)
    trial = None if kind.name == "model_card" else build_verification_set(config, model.members)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if trial is None:
            atomic_write(out, write_model_card(paths[0], model, config.interval_level))
        else:
            _export(config, kind, model, trial, out)
    except OSError as error:
        raise BoneAgeError(f"{out} cannot be written: {error.strerror or error}.") from error
    log.info("written\n  %s", "\n  ".join(str(file) for file in kind.files(out)))
    return out


def _export(
    config: DictConfig, kind: ExportFormat, model: BoneAgePredictor, trial: VerificationSet, out: Path
) -> None:
    exported = ExportModule(model)
    paths = [member.path for member in model.members]
    reference = check_export("PyTorch float32", exported.predict, trial, sum(map(megabytes, paths)))
    tried: list[ExportCheck] = []
    with tempfile.TemporaryDirectory(prefix=".export_", dir=out.parent) as folder:
        aside = Path(folder) / out.name
        repeated = OmegaConf.to_container(config, resolve=False)
        job = ExportJob(
            model,
            exported,
            reference,
            trial,
            precision=config.precision,
            interval_level=config.interval_level,
            max_mae_increase=config.max_mae_increase,
            trusted_config=repeated,
            checks=tried,
        )
        try:
            WRITERS[kind.name](job, aside)
        finally:  # a rejected export is shown too
            rows = "\n".join(one.row(reference) for one in (reference, *tried))
            log.info("tried on %s, on the CPU\n%s\n%s", trial.description, TABLE_HEAD, rows)
        if MODEL_CARD in kind.extra_files:
            card = write_model_card(paths[0], model, config.interval_level, config.precision)
            atomic_write(aside.with_name(MODEL_CARD), card)
        for file in reversed(kind.files(out)):  # what the others belong to comes last
            (Path(folder) / file.name).replace(file)
    _report_checks(tried, reference, trial, model)


def _report_checks(
    tried: Sequence[ExportCheck], reference: ExportCheck, trial: VerificationSet, model: BoneAgePredictor
) -> None:
    """Say how far off what was written is."""
    for found in tried:
        off = np.abs(found.months - reference.months)
        log.info(
            "%s is off by at most %.4f months from PyTorch, %.4f on average",
            found.name,
            off.max(),
            off.mean(),
        )
    if trial.stored is not None and trial.bone_age is not None:
        theirs = float(np.abs(trial.stored - trial.bone_age).mean())
        log.info(
            "the training measured %.3f months on these images, in %s",
            theirs,
            model.members[0].metadata.precision,
        )
