"""A phantom's record on disk: what it was made from, whether it is whole, and what may be written where."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import atomic_write

VERSION = 1  # of the generator: raise it when a picture or the table would come out differently

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
            "Ask for 1 image or more, of 32 pixels a side or more."
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
        f"Asked for: {phantom}\n"
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
