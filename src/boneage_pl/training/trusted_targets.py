"""Which `_target_`s of a stored configuration may be instantiated, by the role that they have there."""

import re
from collections.abc import Iterator
from typing import Any

from boneage_pl.errors import BoneAgeError

_OWN = r"boneage_pl\."
# For each place in a configuration the classes that it may name: ours, or a library's of that kind.
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
    # those of Lightning's that write no files
    "callbacks": _OWN + r"training\.callbacks\.(checkpointing\.SaveBestAndLast|early_stopping\.EarlyStopping)"
    r"|lightning\.pytorch\.callbacks\.(\w*EarlyStopping|\w*WeightAveraging|LearningRateMonitor|Timer|Lambda"
    r"|GradientAccumulationScheduler|LearningRateFinder|BackboneFinetuning|RichProgressBar|TQDMProgressBar)",
}


def check_trusted_targets(config: Any, repeated: dict[str, Any]) -> None:
    """Refuse a run's configuration that would build what neither the project nor this command names.

    A run folder may be untrusted, and a `_target_` can be any function of any installed package.

    Args:
        config: the configuration as plain values.
        repeated: options that the user has typed; a `_target_` among them is theirs.

    Raises:
        BoneAgeError: naming the first such object, and how to accept it.
    """
    for key, target in iter_targets(config):
        if repeated.get(key) != target and not is_trusted(key, target):
            raise BoneAgeError(
                f"the run's configuration names {key}={target}, which is not this project's own there.\n"
                f"If it is yours, repeat it: add {key}={target} to the command."
            )


def is_trusted(key: str, target: str) -> bool:
    """Whether a configuration may name `target` at `key`, such as `model._target_`."""
    parts = key.split(".")[:-1] or [""]
    role = ".".join(parts[:2])
    return re.fullmatch(_ALLOWED.get(role) or _ALLOWED.get(parts[0], r"(?!)"), target) is not None


def iter_targets(node: Any, at: str = "") -> Iterator[tuple[str, str]]:
    """Yield the place and the name of each object that a configuration, as plain values, would build."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        path = f"{at}.{key}" if at else str(key)
        if key == "_target_":
            yield path, str(value)
        else:
            yield from iter_targets(value, path)
