"""docs/RESULTS_REPRODUCTION.md is built from its template and the committed records."""

import re
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from boneage_pl.evaluation.compare import compare_runs
from boneage_pl.evaluation.comparison import FIGURES, MAX_FILE_BYTES

CHECKOUT = Path(__file__).parents[2]
DOCS = CHECKOUT / "docs"
RECORDS = sorted(folder for folder in (DOCS / "records").iterdir() if folder.is_dir())


def test_page_is_built_from_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(CHECKOUT)
    config = OmegaConf.load(CHECKOUT / "conf" / "compare.yaml")
    options = {
        "runs": "docs/records/*",
        "format": "markdown",
        "template": "docs/results_reproduction.md.jinja",
        "out": str(tmp_path / "RESULTS_REPRODUCTION.md"),
    }
    page = compare_runs(DictConfig(OmegaConf.merge(config, options)))
    assert page.read_text() == (DOCS / "RESULTS_REPRODUCTION.md").read_text(), "run `make reproduction`"
    for picture in re.findall(r"!\[[^]]*\]\(([^)]*)\)", page.read_text()):
        assert (DOCS / picture).is_file()


def test_records_name_no_machine_path():
    for file in (DOCS / "records").rglob("*.*"):
        if file.suffix in (".json", ".yaml"):
            assert not re.search(r"[\"' =](/|[A-Za-z]:\\)\w", file.read_text()), file


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_records_are_small_and_show_no_radiograph(record: Path):
    texts = {"config.yaml", "metrics.csv", "metrics.json", "paired_tests.json", "run.json", "summary.json"}
    names = {file.name for file in record.iterdir()}
    assert names <= texts | {f"{name}.png" for name in FIGURES}
    assert sum(file.stat().st_size for file in record.iterdir()) <= MAX_FILE_BYTES
