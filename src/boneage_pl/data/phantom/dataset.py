"""The phantom's table, and its images on disk in the layout of the RSNA download."""

import zlib
from io import BytesIO
from pathlib import Path

import pandas as pd
from PIL import Image

from boneage_pl.data.phantom.conditions import TABLE, rng_for
from boneage_pl.data.phantom.radiograph import render
from boneage_pl.data.phantom.record import (
    IMAGE_FOLDER,
    TABLE_FILE,
    PhantomSpec,
    begin_dataset,
    finish_dataset,
)
from boneage_pl.utils.files import atomic_write
from boneage_pl.utils.processes import cores, parallel_map
from boneage_pl.utils.progress import progress

MAX_AGE_YEARS = 228  # months; the RSNA table ends there
AGE_BINS = 10
GROUPS = 2 * AGE_BINS


def phantom_table(count: int, seed: int) -> pd.DataFrame:
    """Return `id` (1..count), `boneage` (whole months, 1 to 228) and `male` of a phantom of `count` images.

    Row i belongs to group i % 20 (ten equal-width age bins, in each a girl and then a boy), so a multiple of
    20 fills every group equally. The first of each sex in the youngest bin is 1 month and in the oldest 228,
    so that the bins of any table of 20 rows or more have the same edges. A row depends on (seed, i) alone:
    a longer table begins with the shorter one.
    """
    return pd.DataFrame([_row(i, seed) for i in range(count)], columns=["id", "boneage", "male"])


def _row(i: int, seed: int) -> tuple[int, int, bool]:
    age_bin, male = divmod(i % GROUPS, 2)
    if i < GROUPS and age_bin in (0, AGE_BINS - 1):
        age = 1 if age_bin == 0 else MAX_AGE_YEARS
    else:
        # pandas.cut's bins are open below and closed above, but the first holds its lower edge.
        below = (MAX_AGE_YEARS - 1) * age_bin // AGE_BINS + 1 - (age_bin == 0)
        last = (MAX_AGE_YEARS - 1) * (age_bin + 1) // AGE_BINS + 1
        age = int(rng_for(seed, i, TABLE).integers(below + 1, last + 1))
    return i + 1, age, bool(male)


def write_phantom(
    root: Path,
    *,
    count: int,
    seed: int,
    size: int = 500,
    skeleton_age: float | None = None,
    workers: int | None = None,
) -> None:
    """Write a phantom of `count` images, `size` × `size` pixels, under `root`; return at once if it is there.

    An interrupted phantom is finished and a shorter one extended: only missing images are drawn. The table
    and the record of the parameters come last, so a half-written phantom is never taken for a whole one.
    With `skeleton_age` (months) every image shows a skeleton of that age while the labels vary: the control,
    from which nothing can be learnt. `workers` processes draw (default: one a core); of several callers at
    once one is let in by `boneage_pl.data.source.generate_if_missing`.

    Raises:
        BoneAgeError: `root` cannot be written, or holds a phantom with other parameters or something else.
            Nothing is ever overwritten.
    """
    phantom = PhantomSpec(count, seed, size, skeleton_age)
    root = Path(root)
    if begin_dataset(root, phantom):
        return
    table = phantom_table(count, seed)
    folder = root / IMAGE_FOLDER
    folder.mkdir(exist_ok=True)
    there = {path.name for path in folder.iterdir()}
    rows = zip(table["id"].tolist(), table["boneage"].tolist(), table["male"].tolist(), strict=True)
    tasks = [
        (folder / f"{id_}.png", age if skeleton_age is None else skeleton_age, male, phantom, id_ - 1)
        for id_, age, male in rows
        if f"{id_}.png" not in there
    ]
    drawing = parallel_map(_render_image, tasks, workers or cores())
    for _ in progress(drawing, count, f"drawing {root}", done=count - len(tasks)):
        pass
    atomic_write(root / TABLE_FILE, table.to_csv(index=False).encode())
    finish_dataset(root, phantom)


def _render_image(task: tuple[Path, float, bool, PhantomSpec, int]) -> None:
    path, age, male, phantom, index = task
    atomic_write(
        path, encode_png(render(age, male, seed=phantom.seed, index=index, size=phantom.size)), flush=False
    )


def encode_png(picture: Image.Image) -> bytes:
    """Return the picture as a PNG; run lengths alone, because a search for repeats in noise finds nothing."""
    file = BytesIO()
    picture.save(file, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return file.getvalue()
