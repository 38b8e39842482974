"""Import optional dependencies, with the extra that installs them."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from boneage_pl.errors import BoneAgeError


def import_optional(module: str, option: str, extra: str) -> Any:
    """Import a package that an option needs.

    Raises:
        BoneAgeError: not installed; with the extra to install.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise _missing_extra(option, extra) from error


def require_installed(module: str, option: str, extra: str) -> None:
    """Raise `BoneAgeError` if a package is not installed, without importing it."""
    if find_spec(module) is None:
        raise _missing_extra(option, extra)


def _missing_extra(option: str, extra: str) -> BoneAgeError:
    return BoneAgeError(f"{option} needs an extra: pip install 'boneage_pl[{extra}]'")
