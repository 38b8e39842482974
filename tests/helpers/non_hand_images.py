"""Pictures that are no radiographs of a hand."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from skimage import data

Picture = NDArray[np.uint8]


def others(hand: Picture) -> dict[str, Picture]:
    """Return some, by name: gray or in color; one is made of a radiograph [H, W]."""
    rng = np.random.default_rng(0)
    return {
        "cat": data.chelsea(),
        "page": data.page(),
        "noise": rng.integers(0, 256, (160, 160), dtype=np.uint8),
        "nearly black": rng.integers(0, 3, (160, 160), dtype=np.uint8),
        "drawn chest film": chest(),
        "photograph of a hand, drawn": photograph(hand),
    }


def chest() -> np.ndarray:
    """A drawn chest film: lungs, spine, heart, ribs."""
    picture = Image.new("L", (512, 512), 30)
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((40, 20, 472, 512), 60, fill=150)
    for lung in ((80, 70, 235, 430), (280, 70, 435, 430)):
        draw.ellipse(lung, fill=50)
    draw.rectangle((240, 0, 272, 512), fill=210)
    draw.ellipse((210, 260, 360, 420), fill=170)
    for y in range(50, 400, 40):
        draw.arc((70, y, 250, y + 90), 180, 360, fill=120, width=9)
        draw.arc((265, y, 445, y + 90), 180, 360, fill=120, width=9)
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(3)))


def photograph(hand: np.ndarray) -> np.ndarray:
    """A hand as a camera sees it: its outline, skin on a table, no bones."""
    soft = np.asarray(Image.fromarray(hand).filter(ImageFilter.GaussianBlur(2))).astype(float)
    skin = 1 / (1 + np.exp(-(soft[:, :, None] - 45) / 6))
    seen = np.array([150, 110, 80]) * (1 - skin) + np.array([224, 172, 140]) * skin
    return (seen + np.random.default_rng(0).normal(0, 5, seen.shape)).clip(0, 255).astype(np.uint8)
