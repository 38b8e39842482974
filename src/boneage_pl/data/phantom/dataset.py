"""Write a synthetic data set with a manifest of its parameters."""

import json
import zlib
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path

import pandas as pd
from PIL import Image

from boneage_pl.data.phantom.acquisition import TABLE, rng_for
from boneage_pl.data.phantom.render import render_radiograph
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import atomic_write, translate_disk_errors
from boneage_pl.utils.processes import cores, file_lock, parallel_map
from boneage_pl.utils.progress import progress

VERSION = 1  # of the generator; increment when images or the table change

MANIFEST = "phantom.json"
TABLE_FILE = "boneage-training-dataset.csv"
IMAGE_FOLDER = "boneage-training-dataset"


@dataclass(frozen=True)
class PhantomSpec:
    """Parameters that determine every byte of a phantom."""

    count: int
    seed: int
    size: int
    skeleton_age: float | None
    version: int = VERSION


def _claim_folder(root: Path, phantom: PhantomSpec) -> None:
    """Write the manifest, unless `root` has that of this phantom; of a shorter one, replace it.

    Raises:
        BoneAgeError: `root` contains something else.
    """
    manifest = root / MANIFEST
    if manifest.exists():
        try:
            existing = PhantomSpec(**json.loads(manifest.read_bytes()))
        except (ValueError, TypeError):
            existing = None
        if existing == phantom:
            return
        longer = existing and replace(existing, count=max(existing.count, phantom.count))
        if longer != phantom:
            raise BoneAgeError(
                f"{root} contains another phantom.\n"
                f"Existing: {existing or 'unreadable manifest'}\n"
                f"Requested: {phantom}\n"
                "Choose another folder with data.root=<folder>, or remove the existing phantom."
            )
    elif names := sorted(path.name for path in root.iterdir() if path.suffix != ".tmp"):
        raise BoneAgeError(
            f"{root} is not a phantom: it contains {', '.join(names[:3])} and no {MANIFEST}.\n"
            "Nothing is overwritten; choose another folder with data.root=<folder>."
        )
    (root / TABLE_FILE).unlink(missing_ok=True)
    atomic_write(manifest, json.dumps(asdict(phantom), indent=2) + "\n")


MAX_MONTHS = 228  # the RSNA table ends there
AGE_BINS = 10
GROUPS = 2 * AGE_BINS


def phantom_table(count: int, seed: int) -> pd.DataFrame:
    """Return `id` (1..count), `boneage` (whole months, 1 to 228) and `male` of a phantom of `count` images.

    Row i is in group i % 20 (ten equal-width age bins, each with a girl and a boy), so multiples of 20 are
    balanced. The first rows of the youngest and oldest bins have 1 and 228 months, so tables of at least 20
    rows have the same bin edges. A row depends only on (seed, i): longer tables begin with the shorter ones.
    """
    return pd.DataFrame([_row(i, seed) for i in range(count)], columns=["id", "boneage", "male"])


def _row(i: int, seed: int) -> tuple[int, int, bool]:
    age_bin, male = divmod(i % GROUPS, 2)
    if i < GROUPS and age_bin in (0, AGE_BINS - 1):
        age = 1 if age_bin == 0 else MAX_MONTHS
    else:
        # as in pandas.cut, bins include the upper edge, the first one also the lower
        below = (MAX_MONTHS - 1) * age_bin // AGE_BINS + 1 - (age_bin == 0)
        last = (MAX_MONTHS - 1) * (age_bin + 1) // AGE_BINS + 1
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
    """Write a phantom of `count` images, `size` × `size` pixels, to `root`, unless it exists.

    An interrupted phantom is completed and a shorter one extended. The manifest is written first, the table
    last. With `skeleton_age` (months), all images have a skeleton of that age but varying labels, as a
    negative control. `workers` is the number of processes (default: one per core).

    Raises:
        BoneAgeError: invalid parameters; `root` cannot be written, or contains another phantom or something
            else. Nothing is ever overwritten.
    """
    if count < 1 or size < 32:
        raise BoneAgeError(
            f"A phantom of {count} images of {size} pixels cannot be generated.\n"
            "At least 1 image of at least 32 pixels is needed."
        )
    root, phantom = Path(root), PhantomSpec(count, seed, size, skeleton_age)
    with translate_disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        _claim_folder(root, phantom)
        _draw_missing(root, phantom, workers)


def _draw_missing(root: Path, phantom: PhantomSpec, workers: int | None) -> None:
    table, folder = phantom_table(phantom.count, phantom.seed), root / IMAGE_FOLDER
    folder.mkdir(exist_ok=True)
    existing = {path.name for path in folder.iterdir()}
    rows = zip(table["id"].tolist(), table["boneage"].tolist(), table["male"].tolist(), strict=True)
    tasks = [
        (folder / f"{id_}.png", age, male, phantom, id_ - 1)
        for id_, age, male in rows
        if f"{id_}.png" not in existing
    ]
    images = parallel_map(_render_image, tasks, workers or cores())
    for _ in progress(images, phantom.count, f"drawing {root}", done=phantom.count - len(tasks)):
        pass
    if not (root / TABLE_FILE).exists():
        atomic_write(root / TABLE_FILE, table.to_csv(index=False))


def generate_if_missing(generate: Callable[[Path], None], root: Path) -> None:
    """Generate synthetic radiographs in `root`; concurrent processes wait for the first.

    Args:
        generate: `write_phantom` with its parameters.
        root: a folder.

    Raises:
        BoneAgeError: `root` cannot be written.
    """
    with ExitStack() as stack:
        # a read-only folder may be complete; checked by `generate`
        with suppress(OSError) if root.is_dir() else translate_disk_errors(root):
            root.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(file_lock(root.parent / f".{root.name}.lock", f"draws {root}"))
        generate(root)


def _render_image(task: tuple[Path, float, bool, PhantomSpec, int]) -> None:
    path, age, male, phantom, index = task
    bone_age = age if phantom.skeleton_age is None else phantom.skeleton_age
    image = render_radiograph(bone_age, male, seed=phantom.seed, index=index, size=phantom.size)
    atomic_write(path, encode_png(image), flush=False)


def encode_png(image: Image.Image) -> bytes:
    """Encode an image as PNG with run lengths only, since noise has no repeats."""
    file = BytesIO()
    image.save(file, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return file.getvalue()
