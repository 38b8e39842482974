"""The tables of docs/RESULTS_REPRODUCTION.md are filled from the committed records."""

import re
import shutil
from pathlib import Path

import pytest

from boneage_pl.evaluation.records import FIGURES, MAX_BYTES
from experiments.fill_tables import MARK, fill

CHECKOUT = Path(__file__).parents[2]
DOCS = CHECKOUT / "docs"
RECORDS = sorted(folder for folder in (DOCS / "records").iterdir() if folder.is_dir())


def test_tables_are_filled_from_records(tmp_path: Path):
    page, folder = DOCS / "RESULTS_REPRODUCTION.md", tmp_path / "docs"
    shutil.copytree(DOCS / "records", folder / "records")
    text = page.read_text()
    assert fill(text, folder) == text, "run `make reproduction`"
    assert len(MARK.findall(text)) == 8
    assert fill(text.replace("v1_seed1 |", "old |"), folder) == text
    for figure in re.findall(r"!\[[^]]*\]\(([^)]*)\)", text):
        assert (DOCS / figure).is_file()
        assert (folder / figure).is_file()


def test_records_name_no_machine_path():
    for file in (DOCS / "records").rglob("*.*"):
        if file.suffix in (".json", ".yaml"):
            assert not re.search(r"[\"' =](/|[A-Za-z]:\\)\w", file.read_text()), file


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.name)
def test_records_are_small_and_show_no_radiograph(record: Path):
    texts = {"config.yaml", "metrics.csv", "metrics.json", "paired_tests.json", "run.json", "summary.json"}
    names = {file.name for file in record.iterdir()}
    assert names <= texts | {f"{name}.png" for name in FIGURES}
    assert sum(file.stat().st_size for file in record.iterdir()) <= MAX_BYTES
