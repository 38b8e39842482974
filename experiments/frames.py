"""How far a run's predictions move where its validation images are framed, on average, in months.

python -m experiments.frames outputs/v3/<run> data/mixed_development [--count 200]
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageOps

from boneage_pl import BoneAgePredictor
from boneage_pl.data.tables.load import read_table

WIDTHS, GRAYS = (0.06, 0.15), (0, 128, 255)  # shares of the longer side; gray values


def main() -> None:
    """Print a line for each frame."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("root", type=Path, help="folder of the radiographs")
    parser.add_argument("--count", type=int, default=200)
    options = parser.parse_args()
    model = BoneAgePredictor.load(options.run, tta=[])
    rows = pd.read_csv(options.run / "report" / "predictions.csv", dtype={"id": str})
    rows = rows[~rows["id"].str.contains("_")].sample(options.count, random_state=0).sort_values("male")
    paths = read_table(options.root).set_index("id")["path"]
    images = [Image.open(paths[i]).convert("L") for i in rows["id"]]

    def predict(shown: list[Image.Image]) -> np.ndarray:
        girls = int((~rows["male"]).sum())
        parts = (model.predict(shown[:girls], sex="F"), model.predict(shown[girls:], sex="M"))
        return np.array([prediction.months for part in parts for prediction in part])

    plain = predict(images)
    for width in WIDTHS:
        for gray in GRAYS:
            framed = [ImageOps.expand(image, round(width * max(image.size)), gray) for image in images]
            print(f"{width:.0%} of {gray:3}: {np.abs(predict(framed) - plain).mean():.2f}")


if __name__ == "__main__":
    main()
