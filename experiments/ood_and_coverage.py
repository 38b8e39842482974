"""How often an interval holds the age, and what is flagged: on images that a checkpoint has not seen.

    python -m experiments.ood_and_coverage CKPT [--root FOLDER] [--originals FOLDER]

Without a folder of radiographs, 1,000 phantoms of another seed are drawn as large as the checkpoint's. With
`originals`, the same radiographs as the checkpoint's, larger. Prints tables in Markdown (docs/PREDICTION.md).
"""

import argparse
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from boneage_pl import BoneAgePredictor
from boneage_pl.data.corruptions import CORRUPTIONS
from boneage_pl.data.phantom import write_phantom
from boneage_pl.data.tables.load import read_table
from boneage_pl.prediction.conformal import AGES, age_region
from boneage_pl.prediction.types import Prediction
from tests.helpers.non_hand_images import edited, others

COUNT, CHANGED = 1000, 300
FLAGS = ("out_of_distribution", "rotated", "resolution_mismatch", "inverted")


def row(name: str, answers: Sequence[Prediction], plain: Sequence[Prediction] = ()) -> None:
    """Print the share that each flag is raised for, and by how many months predictions differ on average."""
    shares = [np.mean([flag in answer.flags for answer in answers]) for flag in FLAGS]
    moved = [abs(one.months - other.months) for one, other in zip(answers, plain, strict=False)]
    cells = [*(f"{share:.1%}" for share in shares), f"{np.mean(moved):.1f}" if moved else "–"]
    print(f"| {name} | {' | '.join(cells)} |", flush=True)


def unseen(model: BoneAgePredictor, root: Path) -> pd.DataFrame:
    split = model.members[0].metadata.split
    table = read_table(root)
    rest = table[~table["id"].isin({*split["train"], *split["validation"]})]
    return rest.sample(min(COUNT, len(rest)), random_state=0)


def sexes(table: pd.DataFrame) -> list[str]:
    return ["M" if male else "F" for male in table["male"]]


def coverage(model: BoneAgePredictor, table: pd.DataFrame) -> list[Prediction]:
    answers = model.predict(table["path"].tolist(), sexes(table))
    low, high, months = (
        np.array([getattr(a, n) for a in answers], float) for n in ("lower", "upper", "months")
    )
    true, male = table["bone_age"].to_numpy(float), table["male"].to_numpy(bool)
    inside = (low <= true) & (true <= high)
    mae, width = np.abs(months - true).mean(), np.mean(high - low)
    print(f"\n{len(table)} images, MAE {mae:.2f}, intervals {width:.1f} months wide")
    if answers[0].std is not None:
        half = np.array([model.intervals.half_width(a.months, male=a.male) for a in answers])
        share = (abs(months - true) <= half).mean()
        print(f"without the predicted deviation {2 * half.mean():.1f}, which hold {share:.1%}")
    parts = {"all": male | ~male, "girls": ~male, "boys": male}
    for kind, age in (("", true), ("predicted ", months)):
        parts |= {f"{kind}{name}": age_region(age) == at for at, (name, _) in enumerate(AGES)}
    print("\n| part | images | inside |\n| --- | --- | --- |")
    for name, part in parts.items():
        if part.any():
            print(f"| {name} | {part.sum()} | {inside[part].mean():.1%} |")
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ckpt")
    parser.add_argument("--root", type=Path)
    parser.add_argument("--originals", type=Path)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    model = BoneAgePredictor.load(options.ckpt, tta=[])  # as the intervals were calibrated
    member = model.members[0]
    with tempfile.TemporaryDirectory() as folder:
        if options.root is None:
            size = member.metadata.config["data"].get("phantom", {}).get("size", member.resize_spec.size)
            write_phantom(Path(folder), count=COUNT, seed=12345, size=size)
        table = unseen(model, options.root or Path(folder)) if options.root else read_table(Path(folder))
        answers = coverage(model, table)
        few = table.iloc[:CHANGED]
        squares = [member.resize_spec.apply(Image.open(path).convert("L")) for path in few["path"]]
        print(f"\n| images | {' | '.join(FLAGS)} | months moved |\n|{' --- |' * (len(FLAGS) + 2)}")
        row("not seen before", answers)
        print(f"| … any flag | {np.mean([bool(a.flags) for a in answers]):.1%} |{' |' * (len(FLAGS))}")
        known = member.ood_detector
        if known:  # these are changed in the square: the size of their file says nothing
            member.ood_detector = replace(known, scale_range=None)
        for name, change in CORRUPTIONS.items():
            changed = [np.ascontiguousarray(change(square)) for square in squares]
            row(name, model.predict(changed, sexes(few)), answers)
        ways = [edited(square) for square in squares]
        for name in ways[0]:
            row(name, model.predict([way[name] for way in ways], sexes(few)), answers)
        member.ood_detector = known
        if options.originals:
            larger = read_table(options.originals)
            row("originals of the checkpoint's copies", model.predict(larger["path"].tolist(), sexes(larger)))
        for name, image in others(squares[0]).items():
            row(name, model.predict(image, "F"))


if __name__ == "__main__":
    main()
