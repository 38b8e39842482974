"""Images to verify an export on, and to calibrate int8 with."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from boneage_pl.cli.overrides import as_list
from boneage_pl.data.images.resize import Pixels
from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.eval_data import select_evaluation_set
from boneage_pl.prediction.ensemble import EnsembleMember
from boneage_pl.prediction.inputs import expand_inputs
from boneage_pl.prediction.loading import load_images
from boneage_pl.training.checkpoint import Checkpoint
from boneage_pl.utils.processes import cores

_MIN_IMAGES = 2  # for a verification
NUM_CALIBRATION = 200  # calibration images; our choice: see docs/EXPORT.md


@dataclass
class ImageBatch:
    """Preprocessed images.

    Args:
        image: uint8 [N, 1, side, side].
        male: float32 [N].
    """

    image: NDArray[np.uint8]
    male: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.image)


@dataclass
class VerificationSet:
    """Images for the verification of an export.

    Args:
        description: of the images, for the log.
        images: to verify on.
        calibration: other images, to calibrate int8 with.
        bone_age: float64 [N] in months; `None` if unknown.
        stored: float64 [N], predictions of the training's validation in months; `None` if there are none.
    """

    description: str
    images: ImageBatch
    calibration: ImageBatch
    bone_age: NDArray[np.float64] | None = None
    stored: NDArray[np.float64] | None = None


def build_verification_set(config: DictConfig, members: Sequence[EnsembleMember]) -> VerificationSet:
    """Return the images that `verify_images` names, or the first checkpoint's validation images.

    Args:
        config: the export's configuration.
        members: the checkpoints, all with the same input size and `resize_mode`.

    Raises:
        BoneAgeError: the images are missing or unreadable.
    """
    if config.verify_images is not None:
        return _from_files(config, members[0])
    try:
        return _from_validation(config, members)
    except BoneAgeError as error:
        raise BoneAgeError(
            f"{error}\nAn export is verified on real images. Give data.root=<the checkpoint's images>\n"
            "or other images with verify_images=<files>."
        ) from error


def _from_validation(config: DictConfig, members: Sequence[EnsembleMember]) -> VerificationSet:
    checkpoints = [Checkpoint(member.path, {}, member.metadata) for member in members]
    options = DictConfig({"data": config.data, "subset": "validation", "leakage": "allow"})
    dataset = select_evaluation_set(options, checkpoints[:1], checkpoints[1:])
    record, frame = members[0].metadata, members[0].resize_spec
    rows, description = dataset.rows.drop_duplicates("id"), "of its validation images"
    # other members, or the first under the published protocol, may have been trained on some of them
    unseen = rows[~rows["id"].isin(dataset.seen)]
    if len(unseen) < _MIN_IMAGES:
        description = f"{description}, also trained on, so their MAE is optimistic"
    else:
        rows = unseen
    rows = rows.iloc[_evenly_spaced(len(rows), config.verify_count)]
    of_id = dataset.table.drop_duplicates("id").set_index("id")
    train = [i for i in dict.fromkeys(record.split["train"]) if i in of_id.index]
    train = [train[at] for at in _evenly_spaced(len(train), NUM_CALIBRATION)]
    read = dataset.stores[frame].read
    predicted = dict(zip(record.validation["id"], record.validation["predicted"], strict=True))
    ids = rows["id"].tolist()
    is_stored = len(members) == 1 and all(i in predicted for i in ids)
    return VerificationSet(
        description=f"{len(ids)} {description}",
        images=ImageBatch(read(ids)[:, None], rows["male"].to_numpy(np.float32)),
        calibration=ImageBatch(read(train)[:, None], of_id.loc[train, "male"].to_numpy(np.float32)),
        bone_age=rows["bone_age"].to_numpy(float),
        stored=np.array([predicted[i] for i in ids], float) if is_stored else None,
    )


def _from_files(config: DictConfig, member: EnsembleMember) -> VerificationSet:
    frame, levels = member.resize_spec, member.metadata.bit_depths
    loaded, errors = [], []
    requests = (replace(request, male=False) for request in expand_inputs(as_list(config.verify_images)))
    for result in load_images(requests, [frame], levels, cores()):
        if result.prediction.error:
            errors.append(f"{result.request.path}: {result.prediction.error}")
            continue
        loaded.append(result.pixels[frame])
        if len(loaded) == 2 * config.verify_count:
            break
    if len(loaded) < 2:
        reason = f"\n{errors[0]}" if errors else ""
        raise BoneAgeError(
            f"verify_images={config.verify_images}: needs two readable images, got {len(loaded)}.{reason}"
        )
    verification, calibration = (_as_both_sexes(loaded[start::2]) for start in (0, 1))
    description = f"{len(loaded[::2])} of the images that verify_images names, each for both sexes"
    return VerificationSet(description, verification, calibration)


def _as_both_sexes(images: list[Pixels]) -> ImageBatch:
    """Return each image for both sexes: the true one does not matter for parity."""
    return ImageBatch(np.stack(images * 2)[:, None], np.repeat([0, 1], len(images)).astype(np.float32))


def _evenly_spaced(count: int, limit: int) -> list[int]:
    """Return at most `limit` evenly spaced indices below `count`: rows of a split are ordered by group."""
    indices: Any = np.linspace(0, count - 1, min(count, limit)).round().astype(int)
    return list(dict.fromkeys(indices.tolist()))
