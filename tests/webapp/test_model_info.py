"""The page's model information contains no ids and no radiographs."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from boneage_pl.webapp.model_info import format_model_line, model_figures


def model(path: Path) -> Any:
    validation = {"id": ["1", "1", "2", "3"], "predicted": [10.0, 10, 20, 30], "bone_age": [12.0, 12, 20, 30]}
    split = {"pixel_sha256": {"1": "a", "2": "b", "3": "b"}}
    record = SimpleNamespace(experiment="v1", image_size=128, validation=validation, split=split)
    return SimpleNamespace(
        members=[SimpleNamespace(path=path / "checkpoints" / "best.ckpt", metadata=record)]
    )


def test_line_counts_images_not_rows(tmp_path: Path):
    assert format_model_line(model(tmp_path)) == ("v1, 128 pixels, MAE 1.0 months on its 2 validation images")


def test_figures_show_no_radiograph(tmp_path: Path):
    assert "No figures" in model_figures(model(tmp_path))
    (tmp_path / "report").mkdir()
    for name in ("bland_altman", "worst_cases"):
        (tmp_path / "report" / f"{name}.png").write_bytes(name.encode())
    assert model_figures(model(tmp_path)).count("<img") == 1
