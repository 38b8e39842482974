"""Write a synthetic data set with a manifest of its parameters."""

import json
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path

import pandas as pd
from PIL import Image

from boneage_pl.data.phantom.acquisition import TABLE, rng_for
from boneage_pl.data.phantom.render import render_radiograph
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import atomic_write
from boneage_pl.utils.processes import cores, file_lock, parallel_map
from boneage_pl.utils.progress import progress

VERSION = 1  # of the generator; increment when images or the table change

MANIFEST = "phantom.json"
UNFINISHED = ".phantom.json"  # the manifest of an unfinished data set
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


def begin_dataset(root: Path, phantom: PhantomSpec) -> bool:
    """Return whether `root` contains this phantom completely; if not, write the unfinished manifest.

    Raises:
        BoneAgeError: `root` contains something else or cannot be written, or invalid parameters.
    """
    if phantom.count < 1 or phantom.size < 32:
        raise BoneAgeError(
            f"A phantom of {phantom.count} images of {phantom.size} pixels cannot be generated.\n"
            "At least 1 image of at least 32 pixels is needed."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        # In this order, a concurrent process that starts or finishes is recognized.
        names = sorted(path.name for path in root.iterdir() if path.suffix != ".tmp")
        unfinished, complete = _read(root / UNFINISHED), _read(root / MANIFEST)
        if complete is not None:
            existing = _parse(complete)
            if existing == phantom and _is_complete(root, phantom):
                return True
            _check_same_spec(root, existing, phantom)
        elif unfinished is not None:
            _check_same_spec(root, _parse(unfinished), phantom)
        elif names:
            raise BoneAgeError(
                f"{root} is not a phantom: it contains {', '.join(names[:3])} and no {MANIFEST}.\n"
                "Nothing is overwritten; choose another folder with data.root=<folder>."
            )
        atomic_write(root / UNFINISHED, _dump(phantom))
    except OSError as error:
        raise BoneAgeError(
            f"The phantom cannot be written to {root}: {error.strerror}.\n"
            "Choose a writable folder with data.root=<folder>."
        ) from error
    return False


def _is_complete(root: Path, phantom: PhantomSpec) -> bool:
    folder = root / IMAGE_FOLDER
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return (root / TABLE_FILE).exists() and all(f"{i + 1}.png" in names for i in range(phantom.count))


def _check_same_spec(root: Path, existing: PhantomSpec | None, phantom: PhantomSpec) -> None:
    if (
        existing is not None
        and existing.count <= phantom.count
        and replace(existing, count=phantom.count) == phantom
    ):
        return
    raise BoneAgeError(
        f"{root} contains another phantom.\n"
        f"Existing: {existing or 'unreadable manifest'}\n"
        f"Requested: {phantom}\n"
        "Choose another folder with data.root=<folder>, or remove the existing phantom."
    )


def finish_dataset(root: Path, phantom: PhantomSpec) -> None:
    """Write the manifest of a complete phantom."""
    atomic_write(root / MANIFEST, _dump(phantom))
    (root / UNFINISHED).unlink(missing_ok=True)


def _dump(phantom: PhantomSpec) -> bytes:
    return (json.dumps(asdict(phantom), indent=2) + "\n").encode()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _parse(record: bytes) -> PhantomSpec | None:
    try:
        return PhantomSpec(**json.loads(record))
    except (ValueError, TypeError):
        return None


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

    An interrupted phantom is completed and a shorter one extended. The table and the manifest are written
    last. With `skeleton_age` (months), all images have a skeleton of that age but varying labels, as a
    negative control. `workers` is the number of processes (default: one per core).

    Raises:
        BoneAgeError: `root` cannot be written, or contains another phantom or something else. Nothing is ever
            overwritten.
    """
    phantom = PhantomSpec(count, seed, size, skeleton_age)
    root = Path(root)
    if begin_dataset(root, phantom):
        return
    table = phantom_table(count, seed)
    folder = root / IMAGE_FOLDER
    folder.mkdir(exist_ok=True)
    existing = {path.name for path in folder.iterdir()}
    rows = zip(table["id"].tolist(), table["boneage"].tolist(), table["male"].tolist(), strict=True)
    tasks = [
        (folder / f"{id_}.png", age if skeleton_age is None else skeleton_age, male, phantom, id_ - 1)
        for id_, age, male in rows
        if f"{id_}.png" not in existing
    ]
    images = parallel_map(_render_image, tasks, workers or cores())
    for _ in progress(images, count, f"drawing {root}", done=count - len(tasks)):
        pass
    atomic_write(root / TABLE_FILE, table.to_csv(index=False).encode())
    finish_dataset(root, phantom)


def generate_if_missing(generate: Callable[[Path], None], root: Path) -> None:
    """Generate synthetic radiographs in `root`; concurrent processes wait for the first.

    Args:
        generate: `write_phantom` with its parameters.
        root: a folder.

    Raises:
        BoneAgeError: `root` cannot be written.
    """
    with ExitStack() as stack:
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(file_lock(root.parent / f".{root.name}.lock", f"draws {root}"))
        except OSError as error:
            if not root.is_dir():  # a read-only folder may be complete; checked by `generate`
                raise BoneAgeError(
                    f"The phantom cannot be written to {root}: {error.strerror}.\n"
                    "Choose a writable folder with data.root=<folder>."
                ) from error
        generate(root)


def _render_image(task: tuple[Path, float, bool, PhantomSpec, int]) -> None:
    path, age, male, phantom, index = task
    atomic_write(
        path,
        encode_png(render_radiograph(age, male, seed=phantom.seed, index=index, size=phantom.size)),
        flush=False,
    )


def encode_png(image: Image.Image) -> bytes:
    """Encode an image as PNG with run lengths only, since noise has no repeats."""
    file = BytesIO()
    image.save(file, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return file.getvalue()
