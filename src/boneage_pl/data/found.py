"""A data set as a command finds it: its table, and its images where they are prepared. Imports no torch."""

import logging
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from boneage_pl.data.frame import ResizeSpec
from boneage_pl.data.place import DatasetSpec
from boneage_pl.data.preparation import is_current, relative_paths
from boneage_pl.data.problems import DataIssues
from boneage_pl.data.store import ImageCache, read_manifest
from boneage_pl.data.table import load_table

log = logging.getLogger(__name__)


@dataclass
class DatasetIndex:
    """What is there before anything is done.

    Args:
        table, problems: see `load_table`.
        store: the prepared images, where they are those of the table.
    """

    table: pd.DataFrame
    problems: DataIssues
    store: ImageCache | None


def open_dataset(place: DatasetSpec, folder: Path, frame: ResizeSpec, *, prepared: bool) -> DatasetIndex:
    """Read a data set's table, see whether its images are prepared, and say what was found.

    Training does this before it imports what takes seconds: what is wrong with a table is said at once.

    Args:
        place: of the data set.
        folder: of the prepared images.
        frame: the square that the images are brought into.
        prepared: whether prepared images are wanted.

    Raises:
        BoneAgeError: see `load_table`.
    """
    table, problems = load_table(place)
    manifest = read_manifest(folder, frame) if prepared else None
    current = manifest is not None and is_current(manifest, relative_paths(place.root, table), place.root)
    store = ImageCache(folder, frame, manifest) if current else None
    note = f"{problems.source}: {len(table)} rows with an image"
    if store:
        note += (
            f", prepared in {folder} and trusted by the size and time of their files\n"
            "(python -m boneage_pl.prepare reads every byte)"
        )
    log.info("%s", note)
    problems.log_notes(log)
    return DatasetIndex(table, problems, store)
