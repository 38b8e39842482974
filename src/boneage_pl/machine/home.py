"""Paths as a person writes them. Imports nothing heavy."""

from pathlib import Path

from boneage_pl.errors import BoneAgeError


def expand_path(text: str) -> Path:
    """Return the path, with a `~` at its start as the home folder.

    Raises:
        BoneAgeError: there is no such user, or no home folder is known.
    """
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise BoneAgeError(
            f"{text}: there is no such home folder here. Write the whole path, or set HOME."
        ) from error
