"""The real images that an export is tried on before it is written."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from boneage_pl.data.frame import Frame
from boneage_pl.errors import BoneageError
from boneage_pl.machine.pool import cores
from boneage_pl.reading.member import Member
from boneage_pl.reading.sources import questions
from boneage_pl.reading.squares import squares_of
from boneage_pl.report.asked import asked_about
from boneage_pl.run.checkpoint import Checkpoint

_FEWEST = 2  # images that something is tried on
CALIBRATING = 200  # images that ranges are taken from; our choice: see docs/EXPORT.md


@dataclass
class Pictures:
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
class Trial:
    """What an export is tried on.

    Args:
        words: what they are.
        pictures: that it is asked about.
        calibration: others, which a conversion may look at: it is not measured on what it was fitted to.
        bone_age: float64 [N] in months; `None` where it is not known.
        stored: float64 [N], the months that the training answered; `None` likewise.
    """

    words: str
    pictures: Pictures
    calibration: Pictures
    bone_age: NDArray[np.float64] | None = None
    stored: NDArray[np.float64] | None = None


def trial_of(config: DictConfig, members: Sequence[Member]) -> Trial:
    """Return the images that `check_images` names, or the first checkpoint's validation images.

    Args:
        config: of the export.
        members: the checkpoints, which are all shown one square.

    Raises:
        BoneageError: they are not there, or cannot be read.
    """
    if config.check_images is not None:
        return _of_files(config, members[0])
    try:
        return _of_validation(config, members)
    except BoneageError as error:
        raise BoneageError(
            f"{error}\nAn export is tried on real images before it is written: data.root=<folder>\n"
            "says where the checkpoint's are now, or check_images=<files> names others."
        ) from error


def _of_validation(config: DictConfig, members: Sequence[Member]) -> Trial:
    every = [Checkpoint(member.path, {}, member.record) for member in members]
    asking = DictConfig({"data": config.data, "subset": "validation", "seen": "allow"})
    asked = asked_about(asking, every[:1], every[1:])
    record, frame = members[0].record, members[0].frame
    rows, words = asked.rows.drop_duplicates("id"), "of its validation images"
    # an image that validated the first may have trained another, or itself under the published protocol
    unseen = rows[~rows["id"].isin(asked.seen)]
    if len(unseen) < _FEWEST:
        words = f"{words}, trained on too, so that their MAE is flattered"
    else:
        rows = unseen
    rows = rows.iloc[_spread(len(rows), config.check_count)]
    of_id = asked.table.drop_duplicates("id").set_index("id")
    train = [i for i in dict.fromkeys(record.split["train"]) if i in of_id.index]
    train = [train[at] for at in _spread(len(train), CALIBRATING)]
    read = asked.stores[frame].read
    answered = dict(zip(record.validation["id"], record.validation["predicted"], strict=True))
    ids = rows["id"].tolist()
    there = len(members) == 1 and all(i in answered for i in ids)
    return Trial(
        words=f"{len(ids)} {words}",
        pictures=Pictures(read(ids)[:, None], rows["male"].to_numpy(np.float32)),
        calibration=Pictures(read(train)[:, None], of_id.loc[train, "male"].to_numpy(np.float32)),
        bone_age=rows["bone_age"].to_numpy(float),
        stored=np.array([answered[i] for i in ids], float) if there else None,
    )


def _of_files(config: DictConfig, member: Member) -> Trial:
    named = config.check_images
    listed = [str(named)] if isinstance(named, str) else [str(name) for name in named]
    frame, levels = member.frame, member.record.levels
    found: list[tuple[NDArray[np.uint8], bool]] = []
    refused = []
    for at, squares in enumerate(squares_of(questions(listed), [frame], levels, cores())):
        if squares.error:
            refused.append(f"{squares.question.path}: {squares.error}")
            continue
        known = squares.question.male
        # of a file that does not say, one sex and the other by turns: an answer is only compared with itself
        found.append((squares.pixels[frame], known if isinstance(known, bool) else at % 2 == 1))
        if len(found) == 2 * config.check_count:
            break
    if len(found) < 2:
        why = f"\n{refused[0]}" if refused else ""
        raise BoneageError(f"check_images={named}: {len(found)} can be read, and two are needed.{why}")
    words = f"{len(found[::2])} of the images that check_images names"
    return Trial(words, _pictures(found[::2], frame), _pictures(found[1::2], frame))


def _pictures(found: Sequence[tuple[NDArray[np.uint8], bool]], frame: Frame) -> Pictures:
    image = np.stack([pixels for pixels, _ in found]).reshape(-1, 1, frame.side, frame.side)
    return Pictures(image, np.array([male for _, male in found], np.float32))


def _spread(count: int, most: int) -> list[int]:
    """Return at most so many places among `count`, evenly spread: a split's rows come group by group."""
    places: Any = np.linspace(0, count - 1, min(count, most)).round().astype(int)
    return list(dict.fromkeys(places.tolist()))
