"""What an option needs that a plain installation does not bring."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from boneage_pl.errors import BoneageError


def needed(module: str, option: str, extra: str) -> Any:
    """Import what an option needs.

    Raises:
        BoneageError: it is not installed; the extra that brings it.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise _missing(option, extra) from error


def check_there(module: str, option: str, extra: str) -> None:
    """Raise `BoneageError` where a package is not installed, without importing it."""
    if find_spec(module) is None:
        raise _missing(option, extra)


def _missing(option: str, extra: str) -> BoneageError:
    return BoneageError(f"{option} needs an extra: pip install 'boneage_pl[{extra}]'")
