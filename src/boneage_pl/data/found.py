"""A data set as a command finds it: its table, and its images where they are prepared. Imports no torch."""

import logging
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from boneage_pl.data.frame import Frame
from boneage_pl.data.place import Place
from boneage_pl.data.preparation import below, is_current
from boneage_pl.data.problems import Problems
from boneage_pl.data.store import ImageStore, read_manifest
from boneage_pl.data.table import examine_table

log = logging.getLogger(__name__)


@dataclass
class Found:
    """What is there before anything is done.

    Args:
        table, problems: see `examine_table`.
        store: the prepared images, where they are those of the table.
    """

    table: pd.DataFrame
    problems: Problems
    store: ImageStore | None


def find_data(place: Place, folder: Path, frame: Frame, *, prepared: bool) -> Found:
    """Read a data set's table, see whether its images are prepared, and say what was found.

    Training does this before it imports what takes seconds: what is wrong with a table is said at once.

    Args:
        place: of the data set.
        folder: of the prepared images.
        frame: the square that the images are brought into.
        prepared: whether prepared images are wanted.

    Raises:
        BoneageError: see `examine_table`.
    """
    table, problems = examine_table(place)
    manifest = read_manifest(folder, frame) if prepared else None
    current = manifest is not None and is_current(manifest, below(place.root, table), place.root)
    store = ImageStore(folder, frame, manifest) if current else None
    said = f"{problems.source}: {len(table)} rows with an image"
    if store:
        said += (
            f", prepared in {folder} and trusted by the size and time of their files\n"
            "(python -m boneage_pl.prepare reads every byte)"
        )
    log.info("%s", said)
    problems.tell(log)
    return Found(table, problems, store)
