"""Allow-list of the `_target_`s in a stored configuration, by their place in it."""

import re
from collections.abc import Iterator
from typing import Any

from boneage_pl.errors import BoneAgeError

_OWN = r"boneage_pl\."
# Allowed classes for each place in a configuration: ours, or a library's of that kind.
_ALLOWED = {
    "model": _OWN + r"model\.(inception\.InceptionRegressor|backbone_regressor\.BackboneRegressor)",
    "loss": _OWN + r"model\.losses\.AgeDistributionLoss|torch\.nn\.\w+Loss",
    "transforms": _OWN + r"data\.transforms\.\w+\.[A-Z]\w+|torchvision\.transforms\.v2\.[A-Z]\w+",
    "sampler": _OWN + r"data\.sampling\.\w+",
    "data": _OWN + r"data\.datamodule\.BoneAgeDataModule",
    "data.phantom": _OWN + r"data\.phantom\.write_phantom",
    "optimizer": r"torch\.optim\.[A-Z]\w+",
    "scheduler": _OWN + r"model\.optim\.warmup_cosine|torch\.optim\.lr_scheduler\.[A-Z]\w+",
    "trainer": r"lightning\.pytorch\.Trainer",
    "trainer.strategy": r"lightning\.pytorch\.strategies\.DDPStrategy",
    "logger": _OWN + r"training\.loggers\.[A-Z]\w+|lightning\.pytorch\.loggers\.[A-Z]\w+",
    # Lightning's callbacks that write no files
    "callbacks": _OWN + r"training\.callbacks\.(checkpointing\.SaveBestAndLast|early_stopping\.EarlyStopping)"
    r"|lightning\.pytorch\.callbacks\.(\w*EarlyStopping|\w*WeightAveraging|LearningRateMonitor|Timer|Lambda"
    r"|GradientAccumulationScheduler|LearningRateFinder|BackboneFinetuning|RichProgressBar|TQDMProgressBar)",
}


def check_trusted_targets(config: Any, repeated: dict[str, Any]) -> None:
    """Reject a stored configuration with a `_target_` that is neither allowed nor typed by the user.

    A run folder may be untrusted, and a `_target_` can be any function of any installed package.

    Args:
        config: the configuration as plain values.
        repeated: options typed by the user.

    Raises:
        BoneAgeError: with the first such object and how to accept it.
    """
    for key, target in iter_targets(config):
        if repeated.get(key) != target and not is_trusted(key, target):
            raise BoneAgeError(
                f"the run's configuration has {key}={target}, which is not one of this project's classes.\n"
                f"If it is yours, add {key}={target} to the command."
            )


def is_trusted(key: str, target: str) -> bool:
    """Whether `target` is allowed at `key`, such as `model._target_`."""
    parts = key.split(".")[:-1] or [""]
    role = ".".join(parts[:2])
    return re.fullmatch(_ALLOWED.get(role) or _ALLOWED.get(parts[0], r"(?!)"), target) is not None


def iter_targets(node: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield key and value of each `_target_` in a configuration of plain values."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        path = f"{at}.{key}" if at else str(key)
        if key == "_target_":
            yield path, str(value)
        else:
            yield from iter_targets(value, path)
