"""The real images that an export is tried on before it is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.errors import BoneAgeError
from boneage_pl.reading.member import EnsembleMember
from boneage_pl.reading.sources import expand_inputs
from boneage_pl.reading.squares import load_images
from boneage_pl.report.asked import select_evaluation_set
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
        images: that it is asked about.
        calibration: others, which a conversion may look at: it is not measured on what it was fitted to.
        bone_age: float64 [N] in months; `None` where it is not known.
        stored: float64 [N], the months that the training answered; `None` likewise.
    """

    description: str
    images: ImageBatch
    calibration: ImageBatch
    bone_age: NDArray[np.float64] | None = None
    stored: NDArray[np.float64] | None = None


def build_verification_set(config: DictConfig, members: Sequence[EnsembleMember]) -> VerificationSet:
    """Return the images that `check_images` names, or the first checkpoint's validation images.

    Args:
        config: of the export.
        members: the checkpoints, which are all shown one square.

    Raises:
        BoneAgeError: they are not there, or cannot be read.
    """
    if config.check_images is not None:
        return _from_files(config, members[0])
    try:
        return _from_validation(config, members)
    except BoneAgeError as error:
        raise BoneAgeError(
            f"{error}\nAn export is tried on real images before it is written: data.root=<folder>\n"
            "says where the checkpoint's are now, or check_images=<files> names others."
        ) from error


def _from_validation(config: DictConfig, members: Sequence[EnsembleMember]) -> VerificationSet:
    every = [Checkpoint(member.path, {}, member.metadata) for member in members]
    asking = DictConfig({"data": config.data, "subset": "validation", "seen": "allow"})
    dataset = select_evaluation_set(asking, every[:1], every[1:])
    record, frame = members[0].metadata, members[0].resize_spec
    rows, words = dataset.rows.drop_duplicates("id"), "of its validation images"
    # an image that validated the first may have trained another, or itself under the published protocol
    unseen = rows[~rows["id"].isin(dataset.seen)]
    if len(unseen) < _MIN_IMAGES:
        words = f"{words}, trained on too, so that their MAE is flattered"
    else:
        rows = unseen
    rows = rows.iloc[_evenly_spaced(len(rows), config.check_count)]
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
    named = config.check_images
    listed = [str(named)] if isinstance(named, str) else [str(name) for name in named]
    frame, levels = member.resize_spec, member.metadata.bit_depths
    found: list[tuple[NDArray[np.uint8], bool]] = []
    refused = []
    for at, squares in enumerate(load_images(expand_inputs(listed), [frame], levels, cores())):
        if squares.error:
            refused.append(f"{squares.request.path}: {squares.error}")
            continue
        known = squares.request.male
        # of a file that does not say, one sex and the other by turns: an answer is only compared with itself
        found.append((squares.pixels[frame], known if isinstance(known, bool) else at % 2 == 1))
        if len(found) == 2 * config.check_count:
            break
    if len(found) < 2:
        why = f"\n{refused[0]}" if refused else ""
        raise BoneAgeError(f"check_images={named}: {len(found)} can be read, and two are needed.{why}")
    words = f"{len(found[::2])} of the images that check_images names"
    return VerificationSet(words, _to_batch(found[::2], frame), _to_batch(found[1::2], frame))


def _to_batch(found: Sequence[tuple[NDArray[np.uint8], bool]], frame: ResizeSpec) -> ImageBatch:
    image = np.stack([pixels for pixels, _ in found]).reshape(-1, 1, frame.size, frame.size)
    return ImageBatch(image, np.array([male for _, male in found], np.float32))


def _evenly_spaced(count: int, most: int) -> list[int]:
    """Return at most so many places among `count`, evenly spread: a split's rows come group by group."""
    places: Any = np.linspace(0, count - 1, min(count, most)).round().astype(int)
    return list(dict.fromkeys(places.tolist()))
