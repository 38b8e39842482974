"""Predict bone age from radiographs."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from boneage_pl.cli.entrypoint import run_command
from boneage_pl.cli.overrides import as_list
from boneage_pl.data.tables.spec import DatasetSpec
from boneage_pl.errors import BoneAgeError
from boneage_pl.prediction.inputs import expand_inputs
from boneage_pl.prediction.output import open_writer
from boneage_pl.utils.files import expand_path

if TYPE_CHECKING:
    from boneage_pl.prediction.predictor import BoneAgePredictor
    from boneage_pl.prediction.types import PredictionResult

PARTIAL_FAILURE = 3  # exit status if some images failed


def predict(config: DictConfig) -> None:
    """Predict `images` with `ckpt` and print or write the predictions.

    Raises:
        BoneAgeError: an invalid option, no images, or an unreadable checkpoint.
        SystemExit: 3 if some images failed.
    """
    tables = DatasetSpec(Path(), columns=config.data.columns, sheet=config.data.sheet)
    requests = expand_inputs(as_list(config.images), config.sex, tables)
    with open_writer(config.out and expand_path(str(config.out)), config.interval_level) as output:
        from boneage_pl.prediction.predictor import BoneAgePredictor  # imports torch
        from boneage_pl.utils.hardware import keep_freed_memory, on_gpu

        if not on_gpu("auto"):
            keep_freed_memory()
        model = BoneAgePredictor.load(
            as_list(config.ckpt),
            interval_level=config.interval_level,
            tta=config.tta,
            output_dir=config.output_dir,
            trusted_config=OmegaConf.to_container(config, resolve=False),
        )
        extra_writers = _make_extras(config, model)
        for result in output.summary(model.predict_iter(requests, config.batch_size)):
            for write in extra_writers if result.prediction.months is not None else ():
                try:
                    write(result)
                except BoneAgeError as error:  # of this image alone
                    result.prediction.error = str(error)
            output.write(result.prediction)
    if output.failed:
        sys.exit(PARTIAL_FAILURE)


def _make_extras(
    config: DictConfig, model: "BoneAgePredictor"
) -> list[Callable[["PredictionResult"], object]]:
    """Return the writers of heatmaps and structured reports."""
    first = model.members[0]
    writers: list[Callable[[PredictionResult], object]] = []
    if config.gradcam_dir:
        from boneage_pl.prediction.gradcam import GradCAMWriter

        explainer = GradCAMWriter(expand_path(str(config.gradcam_dir)), first)
        writers.append(lambda result: explainer.write(result.prediction, result.pixels[first.resize_spec]))
    if config.dicom_sr:
        from boneage_pl.prediction.dicom_sr import needs_highdicom, write_dicom_sr

        needs_highdicom()
        name, identify = first.metadata.experiment, bool(config.include_patient_id)
        writers.append(
            lambda result: write_dicom_sr(result.prediction, name, config.interval_level, identify=identify)
        )
    return writers


if __name__ == "__main__":
    run_command(predict, "predict")
