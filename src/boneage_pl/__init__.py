"""Skeletal age in months from hand radiographs: the RSNA 2017 experiment in PyTorch Lightning."""

import getpass
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from boneage_pl.prediction.predictor import BoneAgePredictor
    from boneage_pl.prediction.types import Prediction

__all__ = ["BoneAgePredictor", "Prediction", "__version__"]
__version__ = "0.1.0"

try:
    getpass.getuser()
except (KeyError, OSError):  # a container's user without an entry in /etc/passwd; PyTorch needs a name
    os.environ["LOGNAME"] = f"user{os.getuid()}"


def __getattr__(name: str) -> Any:
    """Import the Python API on first use, because it imports PyTorch."""
    if name == "BoneAgePredictor":
        from boneage_pl.prediction.predictor import BoneAgePredictor

        return BoneAgePredictor
    if name == "Prediction":
        from boneage_pl.prediction.types import Prediction

        return Prediction
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
