"""Shared weights have the checkpoint's content without local paths."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from boneage_pl.errors import BoneAgeError
from boneage_pl.training.checkpoint import load_checkpoint, load_for_inference
from boneage_pl.training.metadata import CheckpointMetadata
from boneage_pl.training.runs import find_checkpoint
from boneage_pl.training.safetensors_io import FORMAT, save_shared_weights
from tests.helpers.fake_checkpoint import record
from tests.helpers.tiny_models import Tiny

TINY = {"_target_": "tests.helpers.tiny_models.Tiny", "image_size": 107}
REPEATED = {"model": {"_target_": "tests.helpers.tiny_models.Tiny"}}
FAMILIAR = {"layer": "backbone", "features": None, "spectrum": {"mean": torch.arange(3.0), "rest": 0.5}}


def share(
    path: Path, network: torch.nn.Module, kind: torch.dtype | None = None, **changed: object
) -> CheckpointMetadata:
    values = {**record(9.0, 8.0), **changed}
    values["config"] = {**values["config"], "model": TINY}
    written = CheckpointMetadata.from_dict(values)
    save_shared_weights(path, network.state_dict(), written, FAMILIAR, kind)
    return written


def test_weights_round_trip(tmp_path: Path):
    network = Tiny(107).to(memory_format=torch.channels_last)
    written = share(tmp_path / "x.safetensors", network)
    found = load_checkpoint(tmp_path / "x.safetensors")
    assert str(found.metadata) == str(written)  # NaN is not equal to itself
    assert torch.equal(found.ood_statistics["spectrum"].pop("mean"), torch.arange(3.0))
    assert found.ood_statistics == {"layer": "backbone", "features": None, "spectrum": {"rest": 0.5}}
    reader, _ = load_for_inference(find_checkpoint(str(tmp_path), Path("outputs")), REPEATED)
    for name, value in network.state_dict().items():
        assert torch.equal(reader.network.state_dict()[name], value)


def test_float16_weights_load_as_float32(tmp_path: Path):
    network = Tiny(107)
    with torch.no_grad():  # beyond float16's range, like BatchNorm variances after a long training
        first = next(p for p in network.parameters() if p.ndim == 1)
        first[0] = 1e5
    share(tmp_path / "whole.safetensors", network)
    share(tmp_path / "half.safetensors", network, torch.float16)
    reader, _ = load_for_inference(tmp_path / "half.safetensors", REPEATED)
    for name, value in network.state_dict().items():
        found = reader.network.state_dict()[name]
        assert found.dtype == value.dtype
        torch.testing.assert_close(found, value, rtol=1e-3, atol=1e-6)
    sizes = [len((tmp_path / f"{name}.safetensors").read_bytes()) for name in ("half", "whole")]
    assert sizes[0] < 0.7 * sizes[1]


def test_shared_file_names_no_local_folder(tmp_path: Path):
    config = {**record(9.0)["config"], "outputs": "~/runs", "ckpt": "C:\\runs\\best.ckpt"}
    config["data"] = {"root": "/home/someone/hands", "image_size": 107, "table": "hands/table.csv"}
    start = {"experiment": "v1", "ckpt": "/home/someone/best.ckpt", "val_mae": 9.0}
    share(tmp_path / "x.safetensors", Tiny(107), config=config, start=start, root="/home/someone/hands")
    text = metadata_of(tmp_path / "x.safetensors")[FORMAT]
    assert "someone" not in text
    assert "~" not in text
    found = load_checkpoint(tmp_path / "x.safetensors").metadata
    assert (found.root, found.config["data"]["root"], found.start.ckpt) == ("", "hands", "best.ckpt")
    assert found.config["data"]["table"] == "hands/table.csv"
    assert found.config["ckpt"] == "best.ckpt"


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def _write_metadata(path: Path, **metadata: str) -> Path:
    save_file(load_file(path), path, metadata={**metadata_of(path), **metadata})
    return path


def _foreign(path: Path) -> Path:
    save_file(load_file(path), path)
    return path


def _no_json(path: Path) -> Path:
    return _write_metadata(path, **{FORMAT: "[" * 100_000})


def _truncated(path: Path) -> Path:
    path.write_bytes(path.read_bytes()[:-100])
    return path


def _flipped(path: Path) -> Path:
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)
    return path


def _anothers(path: Path) -> Path:
    share(path.with_name("z.safetensors"), Tiny(107))
    save_file(load_file(path.with_name("z.safetensors")), path, metadata=metadata_of(path))
    return path


def _no_tensors(path: Path) -> Path:
    path.write_bytes(b"words, not tensors")
    return path


def _lacks_split(path: Path) -> Path:
    content = json.loads(metadata_of(path)[FORMAT])
    del content["record"]["split"]
    return _write_metadata(path, **{FORMAT: json.dumps(content)})


def _as_checkpoint(path: Path) -> Path:
    return path.rename(path.with_suffix(".ckpt"))


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (_foreign, "no metadata of boneage_pl"),
        (_no_json, "not a safetensors file"),
        (_truncated, "not a safetensors file"),
        (_flipped, ": damaged"),
        (_anothers, ": damaged"),
        (_no_tensors, "not a safetensors file"),
        (_lacks_split, "split: Field required"),
        (_as_checkpoint, r"x\.ckpt cannot be read as a checkpoint"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, harm: object, says: str):
    share(tmp_path / "x.safetensors", Tiny(107))
    with pytest.raises(BoneAgeError, match=says):
        load_checkpoint(harm(tmp_path / "x.safetensors"))


def test_folder_of_several_is_ambiguous(tmp_path: Path):
    for name in ("x", "y"):
        share(tmp_path / f"{name}.safetensors", Tiny(107))
    with pytest.raises(BoneAgeError, match=r"no single \.safetensors file"):
        find_checkpoint(str(tmp_path), Path("outputs"))
