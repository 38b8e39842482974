"""What runs of before have in their configuration, in the words of today. Imports no torch."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

_MOVED = {"boneage_pl.checkpoint_io.Checkpoints": "boneage_pl.run.saving.Checkpoints"}

# groups that the configuration has been given since, as they were when there was no choice
_ADDED: dict[str, Any] = {
    "loss": {"_target_": "torch.nn.L1Loss"},
    "sampling": {"_target_": "boneage_pl.data.sampling.balanced", "_partial_": True},
    "transforms": {
        "train": {"flip": {"_target_": "boneage_pl.data.transforms.Flip", "share": 0.5}},
        "validation": {},
    },
}
_ADDED_DATA = {"fit": "crop", "fold": 1, "split_seed": None, "drop_last": False, "on_device": None}


def of_today(config: Any) -> Any:
    """Return a run's configuration, plain or OmegaConf's, with the names that its parts have today."""
    if isinstance(config, DictConfig):
        return OmegaConf.create(of_today(OmegaConf.to_container(config, resolve=False)))
    config = _moved(config)
    if not {"model", "data"} <= set(config):
        return config
    ours = config["data"].get("_target_") == "boneage_pl.data.datamodule.BoneAgeData"
    return {**_ADDED, **config, "data": {**(_ADDED_DATA if ours else {}), **config["data"]}}


def _moved(node: Any) -> Any:
    if isinstance(node, dict):
        return {k: _MOVED.get(v, v) if k == "_target_" else _moved(v) for k, v in node.items()}
    return [_moved(value) for value in node] if isinstance(node, list) else node
