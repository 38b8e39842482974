"""Records of runs: what may be shown to everyone of a run, small enough to be committed beside the code."""

import json
import shutil
from pathlib import Path

from PIL import Image

from boneage_pl.errors import BoneAgeError
from boneage_pl.report.comparison import diff_options
from boneage_pl.report.outcome import PAIRED_TESTS, RunResults

# What is of a run's report; its worst cases show radiographs, its predictions and its page name them.
FIGURES = ("predicted_against_true", "bland_altman", "error_by_age", "groups", "learning_curves")
FILES = {
    ".hydra/config.yaml": "config.yaml",
    "metrics.csv": "metrics.csv",
    "run.json": "run.json",
    "report/metrics.json": "metrics.json",
    "report/summary.json": "summary.json",
}
MAX_FILE_BYTES = 300_000  # bytes


def save_records(runs: list[RunResults], folder: Path) -> list[Path]:
    """Write a record of each run, with its tests against the others, into a folder of its name; return these.

    A record has the configuration, the epochs, versions, hardware and times, the report's numbers and the
    figures that show no radiograph: no image, no id, no weights. One that is there is replaced; its tests
    against runs that are not among these stay.

    Raises:
        BoneAgeError: a run is not finished, or is a record itself; two would have one name.
    """
    names = {run.name: run.name.replace("/", "_") for run in runs}
    for run in runs:
        if run.summary is None:
            raise BoneAgeError(f"keep={folder}: {run.folder} is not finished ({run.state}).")
        if run.predictions is None:
            raise BoneAgeError(f"keep={folder}: {run.folder} is a record already. Name the run's folder.")
    if len(set(names.values())) < len(names):
        raise BoneAgeError(f"keep={folder}: two of the runs would have one name.")
    return [
        _save_record(run, [other for other in runs if other is not run], folder / names[run.name])
        for run in runs
    ]


def _save_record(run: RunResults, others: list[RunResults], target: Path) -> Path:
    before = target / PAIRED_TESTS
    tests = json.loads(before.read_text(encoding="utf-8")) if before.is_file() else {}
    tests |= {other.name.replace("/", "_"): diff_options(run, other) for other in others}
    new = target.with_name(f".{target.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(parents=True)
    for source, name in FILES.items():
        if (run.folder / source).is_file():
            shutil.copyfile(run.folder / source, new / name)
    for name in FIGURES:
        figure = run.folder / "report" / f"{name}.png"
        if figure.is_file():
            with Image.open(figure) as image:  # 64 colours draw these as well, in a third of the bytes
                image.convert("RGB").quantize(64).save(new / figure.name, optimize=True)
    if tests:
        text = json.dumps(dict(sorted(tests.items())), indent=1)
        (new / PAIRED_TESTS).write_text(text + "\n", encoding="utf-8")
    if (size := sum(file.stat().st_size for file in new.iterdir())) > MAX_FILE_BYTES:
        raise BoneAgeError(f"{new} has {size} bytes, more than the {MAX_FILE_BYTES} of a record.")
    shutil.rmtree(target, ignore_errors=True)
    new.rename(target)
    return target
