"""A checkpoint becomes a file for elsewhere: read → write aside → try on real images → put in its place."""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from boneage_pl.deploy.card import write_model_card
from boneage_pl.deploy.choice import MODEL_CARD, ExportFormat, output_path
from boneage_pl.deploy.exported import ExportModule
from boneage_pl.deploy.formats import WRITERS, ExportJob
from boneage_pl.deploy.measured import TABLE_HEAD, ExportCheck, check_export, megabytes
from boneage_pl.deploy.onnx_file import needs_onnx
from boneage_pl.deploy.trial import VerificationSet, build_verification_set
from boneage_pl.errors import BoneAgeError
from boneage_pl.reading.model import BoneAgePredictor
from boneage_pl.utils.files import atomic_write

log = logging.getLogger(__name__)


def export_model(config: DictConfig, kind: ExportFormat, paths: Sequence[Path]) -> Path:
    """Export the checkpoints at `paths` as `kind`, and return the file.

    Nothing is there under its final name before it has answered as it must.

    Raises:
        BoneAgeError: a checkpoint that cannot be read, an extra that is missing, images that are not there,
            answers that are not the checkpoint's, or a disk that does not take the file.
    """
    if kind.name == "onnx":
        needs_onnx()
    repeated = OmegaConf.to_container(config, resolve=False)
    model = BoneAgePredictor.load(paths, level=config.level, device="cpu", repeated=repeated)
    out = output_path(config, kind, paths[0], model.members[0].metadata.experiment)
    trial = None if kind.name == "card" else build_verification_set(config, model.members)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if trial is None:
            atomic_write(out, write_model_card(paths[0], model, config.level))
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
            level=config.level,
            max_mae_increase=config.max_cost,
            trusted_config=repeated,
            checks=tried,
        )
        try:
            WRITERS[kind.name](job, aside)
        finally:  # what is refused is shown too
            rows = "\n".join(one.row(reference) for one in (reference, *tried))
            log.info("tried on %s, on the CPU\n%s\n%s", trial.description, TABLE_HEAD, rows)
        if MODEL_CARD in kind.extra_suffixes:
            card = write_model_card(paths[0], model, config.level, config.precision)
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
