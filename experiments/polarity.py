"""How often `FixPolarity` exchanges black and white in radiographs, their negatives, and both in frames.

python -m experiments.polarity data/rsna100 [--count 3000] [--size 128]
"""

import argparse
from pathlib import Path

import torch
from PIL import Image
from torch.nn import functional as F

from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.tables.load import read_table
from boneage_pl.data.transforms.compose import as_float
from boneage_pl.data.transforms.intensity import FixPolarity


def main() -> None:
    """Print the share whose middle third changes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path, help="folder of the radiographs")
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--size", type=int, default=128)
    options = parser.parse_args()
    table = read_table(options.root)
    spec, side = ResizeSpec(options.size, "stretch"), options.size // 3
    changed: dict[str, list[torch.Tensor]] = {}
    for path in table.sample(min(options.count, len(table)), random_state=0)["path"]:
        image = torch.tensor(spec.apply(Image.open(path).convert("L")))[None, None]
        for name, pixels in {"originals": image, "negatives": 255 - image}.items():
            for frame in (None, 0, 160, 255):
                width = 0 if frame is None else side // 4
                framed = F.pad(pixels, [width] * 4, value=frame or 0)
                moved = (FixPolarity()(framed) - as_float(framed)).abs()
                middle = moved[..., side + width : -side - width, side + width : -side - width]
                changed.setdefault(f"{name}, frame of {frame}", []).append(middle.amax() > 1e-3)
    for name, values in changed.items():
        print(f"{name:24} {torch.stack(values).float().mean():7.2%}")


if __name__ == "__main__":
    main()
