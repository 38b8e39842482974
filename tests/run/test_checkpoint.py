from pathlib import Path

import pytest
import torch

from boneage_pl.errors import BoneageError
from boneage_pl.model.network import BoneAgeNet
from boneage_pl.run.checkpoint import Checkpoint, load_checkpoint, load_weights

MODEL = {"image_size": 107, "hidden_features": 1000, "weights": None}


def test_weights_bring_along_how_the_backbone_reads_its_input():
    """A v1 that began with ImageNet's weights re-scales its input; a v2 from it must too."""
    trained = BoneAgeNet(107)
    record = {"model": {**MODEL, "weights": "imagenet"}, "transform_input": True}
    network = BoneAgeNet(107)
    load_weights(network, Checkpoint(Path("a"), trained.state_dict(), record), MODEL)
    assert network.backbone.transform_input is True
    assert torch.equal(network.age.weight, trained.age.weight)


def test_another_network_is_refused_with_the_options_that_match():
    record = {"model": {**MODEL, "hidden_features": 10, "image_size": 128}, "transform_input": False}
    with pytest.raises(BoneageError, match=r"pass data.image_size=128 model.hidden_features=10"):
        load_weights(BoneAgeNet(107), Checkpoint(Path("a"), {}, record), MODEL)


def test_a_checkpoint_that_carries_code_is_refused_and_the_code_does_not_run(tmp_path: Path):
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    torch.save({"state_dict": {}, "boneage_pl": Code()}, tmp_path / "x.ckpt")
    with pytest.raises(BoneageError, match="more than tensors and plain values; nothing of it was run"):
        load_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "ran").exists()
