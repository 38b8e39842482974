"""Skeletal age in months from hand radiographs: the RSNA 2017 experiment in PyTorch Lightning."""

import getpass
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boneage_pl.reading.answer import Answer
    from boneage_pl.reading.model import BoneAge

__all__ = ["Answer", "BoneAge", "__version__"]
__version__ = "0.1.0"

try:
    getpass.getuser()
except (KeyError, OSError):  # a container's user who is not in /etc/passwd; PyTorch asks for a name
    os.environ["LOGNAME"] = f"user{os.getuid()}"


def __getattr__(name: str) -> Any:
    """Import what people use when they ask for it: it brings PyTorch along."""
    if name == "BoneAge":
        from boneage_pl.reading.model import BoneAge

        return BoneAge
    if name == "Answer":
        from boneage_pl.reading.answer import Answer

        return Answer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
