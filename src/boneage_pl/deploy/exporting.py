"""A checkpoint becomes a file for elsewhere: read → write aside → try on real images → put in its place."""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf

from boneage_pl.deploy.card import card_of
from boneage_pl.deploy.choice import CARD, Kind, place_of
from boneage_pl.deploy.exported import Exported
from boneage_pl.deploy.formats import WRITERS, Job
from boneage_pl.deploy.measured import HEAD, Measured, measured, megabytes
from boneage_pl.deploy.onnx_file import needs_onnx
from boneage_pl.deploy.trial import Trial, trial_of
from boneage_pl.errors import BoneageError
from boneage_pl.machine.whole import write_whole
from boneage_pl.reading.model import BoneAge

log = logging.getLogger(__name__)


def export_model(config: DictConfig, kind: Kind, paths: Sequence[Path]) -> Path:
    """Export the checkpoints at `paths` as `kind`, and return the file.

    Nothing is there under its final name before it has answered as it must.

    Raises:
        BoneageError: a checkpoint that cannot be read, an extra that is missing, images that are not there,
            answers that are not the checkpoint's, or a disk that does not take the file.
    """
    if kind.name == "onnx":
        needs_onnx()
    repeated = OmegaConf.to_container(config, resolve=False)
    model = BoneAge.load(paths, level=config.level, device="cpu", repeated=repeated)
    out = place_of(config, kind, paths[0], model.members[0].record.experiment)
    trial = None if kind.name == "card" else trial_of(config, model.members)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if trial is None:
            write_whole(out, card_of(paths[0], model, config.level))
        else:
            _export(config, kind, model, trial, out)
    except OSError as error:
        raise BoneageError(f"{out} cannot be written: {error.strerror or error}.") from error
    log.info("written\n  %s", "\n  ".join(str(file) for file in kind.files(out)))
    return out


def _export(config: DictConfig, kind: Kind, model: BoneAge, trial: Trial, out: Path) -> None:
    exported = Exported(model)
    paths = [member.path for member in model.members]
    reference = measured("PyTorch float32", exported.ask, trial, sum(map(megabytes, paths)))
    tried: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix=".export_", dir=out.parent) as folder:
        aside = Path(folder) / out.name
        repeated = OmegaConf.to_container(config, resolve=False)
        job = Job(
            model,
            exported,
            reference,
            trial,
            precision=config.precision,
            level=config.level,
            max_cost=config.max_cost,
            repeated=repeated,
            tried=tried,
        )
        try:
            WRITERS[kind.name](job, aside)
        finally:  # what is refused is shown too
            rows = "\n".join(one.row(reference) for one in (reference, *tried))
            log.info("tried on %s, on the CPU\n%s\n%s", trial.words, HEAD, rows)
        if CARD in kind.beside:
            card = card_of(paths[0], model, config.level, config.precision)
            write_whole(aside.with_name(CARD), card)
        for file in reversed(kind.files(out)):  # what the others belong to comes last
            (Path(folder) / file.name).replace(file)
    _conclude(tried, reference, trial, model)


def _conclude(tried: Sequence[Measured], reference: Measured, trial: Trial, model: BoneAge) -> None:
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
            model.members[0].record.precision,
        )
