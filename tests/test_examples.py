"""The examples run: notebook and scripts."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import SMALL_PHANTOM

EXAMPLES = Path(__file__).parents[1] / "examples"
SMALL = [
    "trainer.max_epochs=2",
    "data.image_size=64",
    "data.batch_size=20",
    "transforms.train.size.size=null",
    "model.backbone=test_efficientnet",
    "model.weights=null",
]
PHANTOM = [option for option in SMALL_PHANTOM if "count" in option or "phantom.size" in option]


def run_notebook(folder: Path, options: list[str], kaggle: Path) -> str:
    """Execute the notebook in `folder` with small parameters and return its output."""
    notebook = nbformat.read(EXAMPLES / "train_evaluate_predict.ipynb", as_version=4)
    tags = {tag: cell for cell in notebook.cells for tag in cell.metadata.get("tags", [])}
    install = tags["install"].source.replace("./boneage_pl", str(EXAMPLES.parent))
    tags["install"].source = install.replace(" -q ", " --dry-run --no-deps --no-build-isolation ")
    tags["parameters"].source = f"EXPERIMENT, OPTIONS, KAGGLE = 'v3', {' '.join(options)!r}, {str(kaggle)!r}"
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
    return "\n".join(str(cell.get("outputs")) for cell in notebook.cells)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_notebook_on_phantoms_and_on_the_layout_of_kaggle(tmp_path: Path):
    shown = run_notebook(tmp_path, [*SMALL, *PHANTOM], tmp_path / "input")
    assert "Would install boneage_pl" in shown
    assert shown.count("image/png") >= 6
    again = run_notebook(tmp_path, [*SMALL, *PHANTOM], tmp_path / "input")  # the finished training is kept
    assert again.count("image/png") >= 6
    assert "error:" not in shown
    assert again.count("error:") == 1  # the run exists; all later steps are repeated
    drawn = tmp_path / "data" / "phantom_small"
    root = tmp_path / "input" / "rsna-bone-age"
    (root / "boneage-training-dataset").mkdir(parents=True)
    for name in ("boneage-training-dataset.csv", "boneage-training-dataset"):
        to = root / name if name.endswith("csv") else root / name / name
        (drawn / name).rename(to)
    other = tmp_path / "other"
    other.mkdir()
    root.chmod(0o555)
    shown = run_notebook(other, [*SMALL, "data.samples_per_group=4"], tmp_path / "input")
    assert f"data.root={root}" in shown
    assert (other / "prepared").exists()

    (image, *_) = sorted((root / "boneage-training-dataset").rglob("*.png"))
    command = [sys.executable, EXAMPLES / "predict.py", "outputs/v3/notebook", "M", image]
    stdout = subprocess.run(command, cwd=other, capture_output=True, text=True, check=True).stdout
    assert re.match(rf"{image} M \d+\.\d months \(-?\d+ to \d+\)", stdout)
