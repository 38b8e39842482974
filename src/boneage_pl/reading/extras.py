"""What an option needs that a plain installation does not bring."""

from importlib import import_module
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
        raise BoneageError(f"{option} needs an extra: pip install 'boneage_pl[{extra}]'") from error
