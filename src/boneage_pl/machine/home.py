"""Paths as a person writes them. Imports nothing heavy."""

from pathlib import Path

from boneage_pl.errors import BoneageError


def path_of(text: str) -> Path:
    """Return the path, with a `~` at its start as the home folder.

    Raises:
        BoneageError: there is no such user, or no home folder is known.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise BoneageError(
            f"{text}: there is no such home folder here. Write the whole path, or set HOME."
        ) from error
