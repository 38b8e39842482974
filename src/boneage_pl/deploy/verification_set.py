"""The images that an export is verified on, and those that calibrate it."""

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

_MIN_IMAGES = 2  # images that something is tried on
NUM_CALIBRATION = 200  # images that ranges are taken from; our choice: see docs/EXPORT.md


@dataclass
class ImageBatch:
    """Images in a network's square.

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
    """What an export is tried on.

    Args:
        description: what they are.
        images: to predict.
        calibration: others, which a conversion may look at: it is not measured on what it was fitted to.
        bone_age: float64 [N] in months; `None` where it is not known.
        stored: float64 [N], validation predictions in months; `None` likewise.
    """

    description: str
    images: ImageBatch
    calibration: ImageBatch
    bone_age: NDArray[np.float64] | None = None
    stored: NDArray[np.float64] | None = None


def build_verification_set(config: DictConfig, members: Sequence[EnsembleMember]) -> VerificationSet:
    """Return the images that `verify_images` names, or the first checkpoint's validation images.

    Args:
        config: of the export.
        members: the checkpoints, which are all shown one square.

    Raises:
        BoneAgeError: they are not there, or cannot be read.
    """
    if config.verify_images is not None:
        return _from_files(config, members[0])
    try:
        return _from_validation(config, members)
    except BoneAgeError as error:
        raise BoneAgeError(
            f"{error}\nAn export is tried on real images before it is written: data.root=<folder>\n"
            "says where the checkpoint's are now, or verify_images=<files> names others."
        ) from error


def _from_validation(config: DictConfig, members: Sequence[EnsembleMember]) -> VerificationSet:
    every = [Checkpoint(member.path, {}, member.metadata) for member in members]
    options = DictConfig({"data": config.data, "subset": "validation", "leakage": "allow"})
    dataset = select_evaluation_set(options, every[:1], every[1:])
    record, frame = members[0].metadata, members[0].resize_spec
    rows, words = dataset.rows.drop_duplicates("id"), "of its validation images"
    # an image that validated the first may have trained another, or itself under the published protocol
    unseen = rows[~rows["id"].isin(dataset.seen)]
    if len(unseen) < _MIN_IMAGES:
        words = f"{words}, trained on too, so that their MAE is flattered"
    else:
        rows = unseen
    rows = rows.iloc[_evenly_spaced(len(rows), config.verify_count)]
    of_id = dataset.table.drop_duplicates("id").set_index("id")
    train = [i for i in dict.fromkeys(record.split["train"]) if i in of_id.index]
    train = [train[at] for at in _evenly_spaced(len(train), NUM_CALIBRATION)]
    read = dataset.stores[frame].read
    predicted = dict(zip(record.validation["id"], record.validation["predicted"], strict=True))
    ids = rows["id"].tolist()
    there = len(members) == 1 and all(i in predicted for i in ids)
    return VerificationSet(
        description=f"{len(ids)} {words}",
        images=ImageBatch(read(ids)[:, None], rows["male"].to_numpy(np.float32)),
        calibration=ImageBatch(read(train)[:, None], of_id.loc[train, "male"].to_numpy(np.float32)),
        bone_age=rows["bone_age"].to_numpy(float),
        stored=np.array([predicted[i] for i in ids], float) if there else None,
    )


def _from_files(config: DictConfig, member: EnsembleMember) -> VerificationSet:
    frame, levels = member.resize_spec, member.metadata.bit_depths
    loaded, refused = [], []
    requests = (replace(one, male=False) for one in expand_inputs(as_list(config.verify_images)))
    for result in load_images(requests, [frame], levels, cores()):
        if result.prediction.error:
            refused.append(f"{result.request.path}: {result.prediction.error}")
            continue
        loaded.append(result.pixels[frame])
        if len(loaded) == 2 * config.verify_count:
            break
    if len(loaded) < 2:
        why = f"\n{refused[0]}" if refused else ""
        raise BoneAgeError(
            f"verify_images={config.verify_images}: {len(loaded)} can be read, and two are needed.{why}"
        )
    verification, calibration = (_as_both_sexes(loaded[start::2]) for start in (0, 1))
    words = f"{len(loaded[::2])} of the images that verify_images names, as of a girl and of a boy"
    return VerificationSet(words, verification, calibration)


def _as_both_sexes(images: list[Pixels]) -> ImageBatch:
    """Return images as of girls and again as of boys: a prediction is only compared with itself."""
    return ImageBatch(np.stack(images * 2)[:, None], np.repeat([0, 1], len(images)).astype(np.float32))


def _evenly_spaced(count: int, most: int) -> list[int]:
    """Return at most so many places among `count`, evenly spread: a split's rows come group by group."""
    places: Any = np.linspace(0, count - 1, min(count, most)).round().astype(int)
    return list(dict.fromkeys(places.tolist()))
