"""Write a synthetic data set, with a manifest that says how it was made."""

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

VERSION = 1  # of the generator: raise it when an image or the table would come out differently

MANIFEST = "phantom.json"
UNFINISHED = ".phantom.json"  # the same record, while images are missing
TABLE_FILE = "boneage-training-dataset.csv"
IMAGE_FOLDER = "boneage-training-dataset"


@dataclass(frozen=True)
class PhantomSpec:
    """What decides every byte of a phantom."""

    count: int
    seed: int
    size: int
    skeleton_age: float | None
    version: int = VERSION


def begin_dataset(root: Path, phantom: PhantomSpec) -> bool:
    """Return whether `root` holds this phantom whole; if not, leave a record there that it is being written.

    Raises:
        BoneAgeError: `root` holds something else or cannot be written, or the parameters are impossible.
    """
    if phantom.count < 1 or phantom.size < 32:
        raise BoneAgeError(
            f"A phantom of {phantom.count} images of {phantom.size} pixels cannot be drawn.\n"
            "Choose 1 image or more, of 32 pixels a side or more."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Read in this order, another process that starts or finishes meanwhile is never taken for foreign.
        names = sorted(path.name for path in root.iterdir() if path.suffix != ".tmp")
        unfinished, whole = _read(root / UNFINISHED), _read(root / MANIFEST)
        if whole is not None:
            held = _parse(whole)
            if held == phantom and _is_complete(root, phantom):
                return True
            _check_same_spec(root, held, phantom)
        elif unfinished is not None:
            _check_same_spec(root, _parse(unfinished), phantom)
        elif names:
            raise BoneAgeError(
                f"{root} is not a phantom: it holds {', '.join(names[:3])} and no {MANIFEST}.\n"
                "The phantom overwrites nothing; give it a folder of its own with data.root=<folder>."
            )
        atomic_write(root / UNFINISHED, _dump(phantom))
    except OSError as error:
        raise BoneAgeError(
            f"The phantom cannot be written to {root}: {error.strerror}.\n"
            "Name a folder that can be written with data.root=<folder>."
        ) from error
    return False


def _is_complete(root: Path, phantom: PhantomSpec) -> bool:
    folder = root / IMAGE_FOLDER
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return (root / TABLE_FILE).exists() and all(f"{i + 1}.png" in names for i in range(phantom.count))


def _check_same_spec(root: Path, held: PhantomSpec | None, phantom: PhantomSpec) -> None:
    if held is not None and held.count <= phantom.count and replace(held, count=phantom.count) == phantom:
        return
    raise BoneAgeError(
        f"{root} holds another phantom.\n"
        f"There: {held or 'a record that cannot be read'}\n"
        f"Requested: {phantom}\n"
        "Give this one a folder of its own with data.root=<folder>, or remove that one yourself."
    )


def finish_dataset(root: Path, phantom: PhantomSpec) -> None:
    """Record that `root` holds this phantom whole."""
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

    Row i belongs to group i % 20 (ten equal-width age bins, in each a girl and then a boy), so a multiple of
    20 fills every group equally. The first of each sex in the youngest bin is 1 month and in the oldest 228,
    so that the bins of any table of 20 rows or more have the same edges. A row depends on (seed, i) alone:
    a longer table begins with the shorter one.
    """
    return pd.DataFrame([_row(i, seed) for i in range(count)], columns=["id", "boneage", "male"])


def _row(i: int, seed: int) -> tuple[int, int, bool]:
    age_bin, male = divmod(i % GROUPS, 2)
    if i < GROUPS and age_bin in (0, AGE_BINS - 1):
        age = 1 if age_bin == 0 else MAX_MONTHS
    else:
        # pandas.cut's bins are open below and closed above, but the first holds its lower edge.
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
    """Write a phantom of `count` images, `size` × `size` pixels, under `root`; return at once if it is there.

    An interrupted phantom is finished and a shorter one extended: only missing images are drawn. The table
    and the record of the parameters come last, so a half-written phantom is never taken for a whole one.
    With `skeleton_age` (months) every image shows a skeleton of that age while the labels vary: the control,
    from which nothing can be learned. `workers` processes draw (default: one a core); of several callers at
    once one is let in by `generate_if_missing`.

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


def generate_if_missing(generate: Callable[[Path], None], root: Path) -> None:
    """Draw synthetic radiographs into `root`; of several processes that call at once one draws.

    Args:
        generate: `write_phantom` with its parameters.
        root: a folder.

    Raises:
        BoneAgeError: `root` cannot be written.
    """
    with ExitStack() as held:
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(file_lock(root.parent / f".{root.name}.lock", f"draws {root}"))
        except OSError as error:
            if not root.is_dir():  # a folder that cannot be written may be whole; `generate` checks it
                raise BoneAgeError(
                    f"The phantom cannot be written to {root}: {error.strerror}.\n"
                    "Name a folder that can be written with data.root=<folder>."
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
    """Return the image as a PNG; run lengths alone, because a search for repeats in noise finds nothing."""
    file = BytesIO()
    image.save(file, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return file.getvalue()
