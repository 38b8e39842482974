"""Fit out-of-distribution statistics and store them in a checkpoint."""

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from boneage_pl.data.images.decode import FORMATS
from boneage_pl.data.images.resize import ReadPixels
from boneage_pl.errors import BoneAgeError, first_line
from boneage_pl.model.inference import BatchPredictor
from boneage_pl.prediction.ood import MAX_IMAGES, OODDetector, fit_ood_detector, scale_ratio
from boneage_pl.training.checkpoint import Checkpoint, load_for_inference
from boneage_pl.utils.files import atomic_path

log = logging.getLogger(__name__)


def add_ood_statistics(path: Path, read: ReadPixels, paths: Mapping[str, str], config: Any) -> None:
    """Add what a run's best checkpoint knows of its images to it, where it is not there yet.

    Args:
        path: of the checkpoint.
        read: ids → its images in its square.
        paths: of the images' files by id, as far as they are known.
        config: of the run, whose objects may be built: they have just been.
    """
    reader, checkpoint = load_for_inference(path, config)
    if checkpoint.ood_statistics is not None:
        return
    train, validation = subset_rows(checkpoint)
    ask = BatchPredictor(reader, checkpoint.metadata.precision)
    details = _scale_ratios(checkpoint, [paths[i] for i in train if i in paths])
    detector = fit_ood_detector(ask, read(train), read(validation), details)
    if detector is None:
        return
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    content["ood_statistics"] = detector.to_dict()
    try:
        with atomic_path(path) as beside:
            torch.save(content, beside)
    except (OSError, RuntimeError) as error:  # PyTorch's writer turns what the disk says into the second
        log.warning(
            "%s cannot be written (%s): out-of-distribution flags will be missing", path, first_line(error)
        )


def load_ood_detector(checkpoint: Checkpoint, ask: BatchPredictor) -> OODDetector | None:
    """Return a checkpoint's out-of-distribution detector; `None`, with a warning, if it has none.

    Raises:
        BoneAgeError: its statistics cannot be read.
    """
    try:
        detector = OODDetector.from_dict(checkpoint.ood_statistics)
        if detector is not None:
            ask.module.network.get_submodule(detector.layer)  # there must be one
    except Exception as error:
        raise BoneAgeError(
            f"{checkpoint.path} cannot be read: {first_line(error)}\nDelete it if it is yours."
        ) from error
    if detector is None:
        log.warning(
            "%s has no out-of-distribution statistics (its training did not end).",
            checkpoint.path,
        )
    return detector


def subset_rows(checkpoint: Checkpoint) -> tuple[list[str], list[str]]:
    """Return the ids that are looked at, spread over each side: of a picture one, and none of both sides."""
    split = checkpoint.metadata.split
    shown = split.get("pixel_sha256") or split["file_sha256"]

    def once(ids: Sequence[str], but: set[str]) -> list[str]:
        of = {shown.get(i, i): i for i in ids if shown.get(i, i) not in but}
        every = list(of.values())
        return every[:: -(-len(every) // MAX_IMAGES) or 1]

    train = {shown.get(i, i) for i in split["train"]}
    return once(split["train"], set()), once(split["validation"], train)


def _scale_ratios(checkpoint: Checkpoint, paths: Sequence[str]) -> list[float]:
    """Return `scale_ratio` files, by their headers alone; of those that cannot be opened none."""
    frame = checkpoint.metadata.resize_spec
    ratios = []
    for path in paths:
        with suppress(Exception), Image.open(path, formats=FORMATS) as image:
            ratios.append(scale_ratio(image.size, frame.size, frame.mode))
    return ratios
