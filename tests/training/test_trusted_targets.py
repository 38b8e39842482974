from typing import Any

import pytest
from omegaconf import OmegaConf

from boneage_pl.cli import CONF_DIR
from boneage_pl.errors import BoneAgeError
from boneage_pl.training.trusted_targets import check_trusted_targets, is_trusted, iter_targets


@pytest.mark.parametrize(
    "group", ["model", "loss", "transforms", "sampler", "optimizer", "scheduler", "logger", "data"]
)
def test_what_conf_names_is_trusted_in_its_place(group: str):
    for file in (CONF_DIR / group).glob("*.yaml"):
        config = OmegaConf.to_container(OmegaConf.load(file))
        for key, target in iter_targets(config):
            place = key if isinstance(config, dict) and group in config else f"{group}.{key}"
            assert is_trusted(place, target), (place, target)


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("loss._target_", "torch.nn.HuberLoss"),
        ("transforms.train.blur._target_", "torchvision.transforms.v2.GaussianBlur"),
        ("callbacks.average._target_", "lightning.pytorch.callbacks.EMAWeightAveraging"),
        ("trainer.strategy._target_", "lightning.pytorch.strategies.DDPStrategy"),
        ("data.phantom._target_", "boneage_pl.data.phantom.write_phantom"),
    ],
)
def test_library_class_is_trusted_in_its_role(key: str, target: str):
    assert is_trusted(key, target)


@pytest.mark.parametrize(
    ("key", "target"),
    [
        ("transforms.validation.x._target_", "boneage_pl.data.phantom.write_phantom"),
        ("model._target_", "boneage_pl.data.phantom.write_phantom"),
        ("model._target_", "torch.nn.L1Loss"),
        ("model.backbone_kwargs.x._target_", "boneage_pl.data.phantom.write_phantom"),
        ("loss._target_", "torch.nn.Module"),
        ("loss._target_", "boneage_pl.model.losses.torch.hub.load"),
        ("optimizer._target_", "torch.optim.lr_scheduler.os.system"),
        ("callbacks.x._target_", "lightning.pytorch.callbacks.ModelCheckpoint"),
        ("trainer._target_", "lightning.pytorch.strategies.DDPStrategy"),
        ("extra._target_", "torch.nn.L1Loss"),
        ("_target_", "torch.nn.L1Loss"),
    ],
)
def test_target_in_another_role_is_refused(key: str, target: str):
    assert not is_trusted(key, target)
    config: dict[str, Any] = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}={target}"]))
    with pytest.raises(BoneAgeError, match=r"add .*_target_="):
        check_trusted_targets(config, {})
    check_trusted_targets(config, {key: target})
