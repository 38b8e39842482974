"""How often `FixPolarity` leaves a radiograph as it is, and undoes its negative.

python -m experiments.polarity data/rsna512 [--count 400] [--size 128]
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.tables.load import read_table
from boneage_pl.data.transforms.intensity import FixPolarity


def share(radiographs: list[Image.Image], frame: ResizeSpec) -> float:
    """Return the share of the radiographs that are taken for negatives."""
    images = torch.from_numpy(np.stack([frame.apply(radiograph) for radiograph in radiographs])).unsqueeze(1)
    kept = FixPolarity()(images) == images / 255
    return float((~kept.flatten(1).all(1)).float().mean())


def main() -> None:
    """Ask it about radiographs of a folder and their negatives, in both ways that they fill the square."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root", type=Path, help="folder of the radiographs")
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    table = read_table(options.root)
    some = table.sample(min(options.count, len(table)), random_state=0)
    radiographs = [Image.open(path).convert("L") for path in some["path"]]
    negatives = [ImageOps.invert(radiograph) for radiograph in radiographs]
    print(f"{len(radiographs)} radiographs at {options.size} px: left as they are, and negatives undone")
    for fit in ("pad", "crop"):
        frame = ResizeSpec(options.size, fit)
        print(
            f"data.resize_mode={fit:4}  {1 - share(radiographs, frame):7.2%}  {share(negatives, frame):7.2%}",
            flush=True,
        )


if __name__ == "__main__":
    main()
