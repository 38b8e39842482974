"""Where what is made of a data set goes, and how a synthetic one comes to be. Imports no torch."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.files import expand_path
from boneage_pl.utils.processes import file_lock


def resolve_cache_dir(store: str | None, root: Path) -> Path:
    """Return the folder that `data.store` names: by default `prepared/` beside the radiographs."""
    return expand_path(store) if store else root / "prepared"


def generate_if_missing(generate: Callable[[Path], None], root: Path) -> None:
    """Draw synthetic radiographs into `root`; of several processes that call at once one draws."""
    with ExitStack() as held:
        try:
            root.parent.mkdir(parents=True, exist_ok=True)
            held.enter_context(file_lock(root.parent / f".{root.name}.lock", f"draws {root}"))
        except OSError as error:
            if not root.is_dir():  # what cannot be written may be whole already; if it is not, this says so
                raise BoneAgeError(
                    f"The phantom cannot be written to {root}: {error.strerror}.\n"
                    "Name a folder that can be written with data.root=<folder>."
                ) from error
        generate(root)
