"""What checkpoints answer about prepared radiographs, one after the other."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from boneage_pl.data.frame import Pixels
from boneage_pl.machine.progress import progress
from boneage_pl.model.inference import predict
from boneage_pl.reading.member import View
from boneage_pl.run.checkpoint import load
from boneage_pl.run.runs import shortest

CLEAN = "clean"
Read = Callable[[Sequence[str]], Pixels]  # ids → uint8 [B, H, W]


@dataclass
class Answers:
    """One checkpoint's.

    Args:
        months: by way that the pictures were shown, `clean` first, and by id.
        timing: `checkpoint, images, seconds, images_per_second`.
    """

    months: dict[str, pd.Series]
    timing: dict[str, Any]


def ask(
    path: Path,
    rows: pd.DataFrame,
    ways: Mapping[str, Read],
    batch: int,
    repeated: Any,
    views: Sequence[View] = (),
) -> Answers:
    """Ask a checkpoint about every image, as each way shows it.

    Args:
        path: of the checkpoint.
        rows: `id, male`; an id may come several times, and is asked once.
        ways: by name, ids → uint8 [B, H, W] in the checkpoint's square; `clean` first.
        batch: images asked at once.
        repeated: see `load`.
        views: in which each picture is looked at too; the answers are averaged.

    Raises:
        BoneageError: see `load`.
    """
    reader, record = load(path, repeated)
    once = rows.drop_duplicates("id")
    ids, male = once["id"].tolist(), once["male"].tolist()
    looks: list[View | None] = [None, *views]
    parts = [(way, slice(at, at + batch)) for way in ways for at in range(0, len(ids), batch)]

    def batches() -> Iterator[tuple[Pixels, list[bool]]]:
        for way, part in progress(parts, len(parts), f"asking {shortest(path.resolve())}", "batches"):
            pixels = ways[way](ids[part])
            for look in looks:
                yield np.stack([look(one) for one in pixels]) if look else pixels, male[part]

    start = time.perf_counter()
    found = [answer.numpy().astype(np.float64) for answer in predict(reader, batches(), record.precision)]
    step = len(looks)
    months = np.concatenate([np.mean(found[k : k + step], axis=0) for k in range(0, len(found), step)])
    seconds = time.perf_counter() - start
    timing = {
        "checkpoint": str(path),
        "images": len(months),
        "seconds": round(seconds, 3),
        "images_per_second": round(len(months) / seconds, 1),
    }
    by_way = months.reshape(len(ways), len(ids))
    return Answers({way: pd.Series(row, ids) for way, row in zip(ways, by_way, strict=True)}, timing)


def mean_of(answers: list[Answers], way: str = CLEAN) -> pd.Series:
    """Return the mean of several checkpoints' months, by id."""
    every: NDArray[np.float64] = np.mean([a.months[way] for a in answers], axis=0)
    return pd.Series(every, answers[0].months[way].index)
