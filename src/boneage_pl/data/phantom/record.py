"""A phantom's record on disk: what it was made from, whether it is whole, and what may be written where."""

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from boneage_pl.errors import BoneageError
from boneage_pl.machine.whole import write_whole

VERSION = 1  # of the generator: raise it when a picture or the table would come out differently

RECORD = "phantom.json"
UNFINISHED = ".phantom.json"  # the same record, while images are missing
TABLE_FILE = "boneage-training-dataset.csv"
IMAGE_FOLDER = "boneage-training-dataset"


@dataclass(frozen=True)
class Phantom:
    """What decides every byte of a phantom."""

    count: int
    seed: int
    size: int
    skeleton_age: float | None
    version: int = VERSION


def claim(root: Path, phantom: Phantom) -> bool:
    """Return whether `root` holds this phantom whole; if not, leave a record there that it is being written.

    Raises:
        BoneageError: `root` holds something else or cannot be written, or the parameters are impossible.
    """
    if phantom.count < 1 or phantom.size < 32:
        raise BoneageError(
            f"A phantom of {phantom.count} images of {phantom.size} pixels cannot be drawn.\n"
            "Ask for 1 image or more, of 32 pixels a side or more."
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Read in this order, another process that starts or finishes meanwhile is never taken for foreign.
        names = sorted(path.name for path in root.iterdir() if path.suffix != ".tmp")
        unfinished, whole = _read(root / UNFINISHED), _read(root / RECORD)
        if whole is not None:
            held = _load(whole)
            if held == phantom and _all_there(root, phantom):
                return True
            _refuse_other(root, held, phantom)
        elif unfinished is not None:
            _refuse_other(root, _load(unfinished), phantom)
        elif names:
            raise BoneageError(
                f"{root} is not a phantom: it holds {', '.join(names[:3])} and no {RECORD}.\n"
                "The phantom overwrites nothing; give it a folder of its own with data.root=<folder>."
            )
        write_whole(root / UNFINISHED, _dump(phantom))
    except OSError as error:
        raise BoneageError(
            f"The phantom cannot be written to {root}: {error.strerror}.\n"
            "Name a folder that can be written with data.root=<folder>."
        ) from error
    return False


def _all_there(root: Path, phantom: Phantom) -> bool:
    folder = root / IMAGE_FOLDER
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    return (root / TABLE_FILE).exists() and all(f"{i + 1}.png" in names for i in range(phantom.count))


def _refuse_other(root: Path, held: Phantom | None, phantom: Phantom) -> None:
    if held is not None and held.count <= phantom.count and replace(held, count=phantom.count) == phantom:
        return
    raise BoneageError(
        f"{root} holds another phantom.\n"
        f"There: {held or 'a record that cannot be read'}\n"
        f"Asked for: {phantom}\n"
        "Give this one a folder of its own with data.root=<folder>, or remove that one yourself."
    )


def finish(root: Path, phantom: Phantom) -> None:
    """Record that `root` holds this phantom whole."""
    write_whole(root / RECORD, _dump(phantom))
    (root / UNFINISHED).unlink(missing_ok=True)


def _dump(phantom: Phantom) -> bytes:
    return (json.dumps(asdict(phantom), indent=2) + "\n").encode()


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _load(record: bytes) -> Phantom | None:
    try:
        return Phantom(**json.loads(record))
    except (ValueError, TypeError):
        return None
