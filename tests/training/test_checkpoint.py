from pathlib import Path

import pytest
import torch

from boneage_pl.errors import BoneAgeError
from boneage_pl.model.input_spec import InputSpec, get_input_spec
from boneage_pl.training.checkpoint import check_same_architecture, load_checkpoint, load_for_inference
from boneage_pl.training.metadata import CheckpointMetadata
from tests.helpers.fake_checkpoint import record, write_checkpoint
from tests.helpers.tiny_models import Tiny

TINY = {
    "_target_": "tests.helpers.tiny_models.Tiny",
    "image_size": 107,
    "hidden_features": 1000,
    "weights": None,
}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def write_tiny(path: Path, **changed: object) -> Tiny:
    """Write the checkpoint of a network with inputs from -1 to 1."""
    network = Tiny(107).eval()
    config = {**record(9.0)["config"], "model": TINY}
    weights = {f"inference.network.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": weights, "boneage_pl": {**record(9.0), "config": config, **changed}}, path)
    return network


def test_inference_module_matches_network(tmp_path: Path):
    network = write_tiny(tmp_path / "x.ckpt", input=HALF)
    reader, found = load_for_inference(
        tmp_path / "x.ckpt", {"model": {"_target_": "tests.helpers.tiny_models.Tiny"}}
    )
    assert found.metadata.input == get_input_spec(reader.network) == InputSpec(**HALF)
    gray = torch.randint(0, 256, (2, 1, 107, 107), dtype=torch.uint8)
    with torch.no_grad():
        theirs = network(gray.expand(-1, 3, -1, -1) / 127.5 - 1, torch.ones(2)).squeeze(1)
        torch.testing.assert_close(reader.eval()(gray, torch.ones(2)), theirs)


def test_foreign_target_is_refused(tmp_path: Path):
    write_tiny(tmp_path / "x.ckpt")
    with pytest.raises(
        BoneAgeError, match=r"has model._target_=tests\.helpers\.tiny_models\.Tiny, which is not"
    ):
        load_for_inference(tmp_path / "x.ckpt")


def test_interpolated_target_is_refused(tmp_path: Path):
    hidden = {**TINY, "extra": "${oc.decode:'{_target_: pathlib.Path.touch}'}"}
    config = {**record(9.0)["config"], "model": hidden}
    torch.save({"state_dict": {}, "boneage_pl": {**record(9.0), "config": config}}, tmp_path / "x.ckpt")
    with pytest.raises(BoneAgeError, match=r"has model.extra._target_=pathlib\.Path\.touch, which is not"):
        load_for_inference(tmp_path / "x.ckpt", {"model": {"_target_": "tests.helpers.tiny_models.Tiny"}})


def test_mismatched_architecture_names_options(tmp_path: Path):
    write_tiny(tmp_path / "x.ckpt")
    ours = {**TINY, "hidden_features": 10, "image_size": 128}
    with pytest.raises(BoneAgeError, match=r"pass model.hidden_features=1000"):
        check_same_architecture(load_checkpoint(tmp_path / "x.ckpt"), ours)
    check_same_architecture(
        load_checkpoint(tmp_path / "x.ckpt"), {**TINY, "allow_download": False, "dropout": 0.3}
    )


def test_metadata_round_trips(tmp_path: Path):
    written = CheckpointMetadata.from_dict(record(9.0, 8.0))
    write_checkpoint(tmp_path / "x.ckpt", **written.to_dict())
    assert str(load_checkpoint(tmp_path / "x.ckpt").metadata) == str(written)  # NaN is not equal to itself


def test_checkpoint_with_code_is_refused(tmp_path: Path):
    class Code:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

    torch.save({"state_dict": {}, "boneage_pl": Code()}, tmp_path / "x.ckpt")
    with pytest.raises(BoneAgeError, match="more than tensors and plain values"):
        load_checkpoint(tmp_path / "x.ckpt")
    assert not (tmp_path / "ran").exists()
