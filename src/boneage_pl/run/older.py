"""What runs of before have in their configuration, in the words of today. Imports no torch."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

_MOVED = {"boneage_pl.checkpoint_io.Checkpoints": "boneage_pl.run.saving.Checkpoints"}


def of_today(config: Any) -> Any:
    """Return a run's configuration, plain or OmegaConf's, with the names that its parts have today."""
    if isinstance(config, DictConfig):
        return OmegaConf.create(of_today(OmegaConf.to_container(config, resolve=False)))
    if isinstance(config, dict):
        return {
            key: _MOVED.get(value, value) if key == "_target_" else of_today(value)
            for key, value in config.items()
        }
    return [of_today(value) for value in config] if isinstance(config, list) else config
