"""Records of runs for a repository: numbers and figures without radiographs, ids or weights."""

import json
import shutil
from pathlib import Path

from PIL import Image

from boneage_pl.errors import BoneAgeError
from boneage_pl.evaluation.comparison import compare_pair
from boneage_pl.evaluation.run_results import PAIRED_TESTS, RunResults

# Figures without radiographs or ids.
FIGURES = ("predicted_against_true", "bland_altman", "error_by_age", "groups", "learning_curves")
FILES = {
    ".hydra/config.yaml": "config.yaml",
    "metrics.csv": "metrics.csv",
    "run.json": "run.json",
    "report/metrics.json": "metrics.json",
    "report/summary.json": "summary.json",
}
MAX_BYTES = 300_000  # of a record


def save_records(runs: list[RunResults], folder: Path) -> list[Path]:
    """Write a record of each run, with tests against the others, and return the records' folders.

    An existing record is replaced, except for tests against runs that are not among these.

    Raises:
        BoneAgeError: an unfinished run, a record, or two runs of one name.
    """
    names = {run.name: run.name.replace("/", "_") for run in runs}
    for run in runs:
        if run.summary is None:
            raise BoneAgeError(f"save_records={folder}: {run.path} is not a finished run ({run.state}).")
        if run.predictions is None:
            raise BoneAgeError(f"save_records={folder}: {run.path} is a record. Give the run's folder.")
    if len(set(names.values())) < len(names):
        raise BoneAgeError(f"save_records={folder}: two runs have the same name.")
    return [
        _save_record(run, [other for other in runs if other is not run], folder / names[run.name])
        for run in runs
    ]


def _save_record(run: RunResults, others: list[RunResults], target: Path) -> Path:
    before = target / PAIRED_TESTS
    tests = json.loads(before.read_text(encoding="utf-8")) if before.is_file() else {}
    tests |= {other.name.replace("/", "_"): compare_pair(run, other) for other in others}
    new = target.with_name(f".{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for source, name in FILES.items():
        if (run.path / source).is_file():
            shutil.copyfile(run.path / source, new / name)
    for name in FIGURES:
        figure = run.path / "report" / f"{name}.png"
        if figure.is_file():
            with Image.open(figure) as image:  # 64 colors suffice, at a third of the size
                image.convert("RGB").quantize(64).save(new / figure.name, optimize=True)
    if tests:
        text = json.dumps(dict(sorted(tests.items())), indent=1)
        (new / PAIRED_TESTS).write_text(text + "\n", encoding="utf-8")
    if (size := sum(file.stat().st_size for file in new.iterdir())) > MAX_BYTES:
        raise BoneAgeError(f"{new} has {size} bytes; a record may have {MAX_BYTES}.")
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
    return target
