"""What checkpoints answer about prepared radiographs, one after the other."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from boneage_pl.data.frame import Pixels
from boneage_pl.machine.progress import progress
from boneage_pl.model.inference import Inference, Said, together
from boneage_pl.reading.member import View
from boneage_pl.run.checkpoint import load
from boneage_pl.run.runs import shortest

CLEAN = "clean"
Read = Callable[[Sequence[str]], Pixels]  # ids → uint8 [B, H, W]


@dataclass
class Answers:
    """One checkpoint's.

    Args:
        said: by way that the pictures were shown, `clean` first.
        ids: of the pictures.
        timing: `checkpoint, images, seconds, images_per_second`.
    """

    said: dict[str, Said]
    ids: list[str]
    timing: dict[str, Any]

    def months(self, way: str = CLEAN) -> pd.Series:
        """Return the months, by id."""
        return pd.Series(self.said[way].months, self.ids)


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
    inference = Inference(reader, record.precision)
    found: dict[str, list[Said]] = {way: [] for way in ways}
    start = time.perf_counter()
    for way, part in progress(parts, len(parts), f"asking {shortest(path.resolve())}", "batches"):
        pixels = ways[way](ids[part])
        shown = (np.stack([look(one) for one in pixels]) if look else pixels for look in looks)
        found[way].append(together([inference(one, male[part]) for one in shown]))
    seconds = time.perf_counter() - start
    count = len(ways) * len(ids)
    timing = {
        "checkpoint": str(path),
        "images": count,
        "seconds": round(seconds, 3),
        "images_per_second": round(count / seconds, 1),
    }
    return Answers({way: _joined(every) for way, every in found.items()}, ids, timing)


def _joined(parts: list[Said]) -> Said:
    """Return the answers about several batches as one."""
    spreads = [part.spread for part in parts if part.spread is not None]
    months = np.concatenate([part.months for part in parts])
    return Said(months, np.concatenate(spreads) if spreads else None)


def mean_of(every: list[Answers], way: str = CLEAN) -> pd.DataFrame:
    """Return what several checkpoints say together, `months` and, where all have one, `spread`, by id."""
    said = together([one.said[way] for one in every])
    found = pd.DataFrame({"months": said.months}, every[0].ids)
    return found if said.spread is None else found.assign(spread=said.spread)
