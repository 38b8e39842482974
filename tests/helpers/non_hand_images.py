"""Images that are not hand radiographs."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from skimage import data

Pixels = NDArray[np.uint8]


def others(hand: Pixels) -> dict[str, Pixels]:
    """Return images by name, gray or color; one is derived from a radiograph [H, W]."""
    rng = np.random.default_rng(0)
    return {
        "cat": data.chelsea(),
        "page": data.page(),
        "noise": rng.integers(0, 256, (160, 160), dtype=np.uint8),
        "nearly black": rng.integers(0, 3, (160, 160), dtype=np.uint8),
        "drawn chest film": chest(),
        "drawn foot": bones(FOOT),
        "drawn knee": bones(KNEE),
        "drawn elbow": bones(ELBOW),
        "photograph of a hand, drawn": photograph(hand),
    }


def chest() -> np.ndarray:
    """Return a drawn chest radiograph: lungs, spine, heart, ribs."""
    image = Image.new("L", (512, 512), 30)
    draw = ImageDraw.Draw(image)
    draw.rounded_rectangle((40, 20, 472, 512), 60, fill=150)
    for lung in ((80, 70, 235, 430), (280, 70, 435, 430)):
        draw.ellipse(lung, fill=50)
    draw.rectangle((240, 0, 272, 512), fill=210)
    draw.ellipse((210, 260, 360, 420), fill=170)
    for y in range(50, 400, 40):
        draw.arc((70, y, 250, y + 90), 180, 360, fill=120, width=9)
        draw.arc((265, y, 445, y + 90), 180, 360, fill=120, width=9)
    return np.asarray(image.filter(ImageFilter.GaussianBlur(3)))


def photograph(hand: np.ndarray) -> np.ndarray:
    """Return a drawn photograph of a hand: skin, without bones."""
    soft = np.asarray(Image.fromarray(hand).filter(ImageFilter.GaussianBlur(2))).astype(float)
    skin = 1 / (1 + np.exp(-(soft[:, :, None] - 45) / 6))
    seen = np.array([150, 110, 80]) * (1 - skin) + np.array([224, 172, 140]) * skin
    return (seen + np.random.default_rng(0).normal(0, 5, seen.shape)).clip(0, 255).astype(np.uint8)


# Bones as lines: points in hundredths of the side, and width.
Line = tuple[tuple[tuple[int, int], ...], int]
FOOT: list[Line] = [
    *(
        (((x, 48), (x - 3 + at, 26), (x - 4 + at, 12 + 2 * at)), 4)
        for at, x in enumerate((38, 45, 52, 58, 64))
    ),
    *((((36 + 7 * at, 54), (41 + 6 * at, 60)), 7) for at in range(4)),
    (((46, 66), (52, 74)), 14),
    (((50, 78), (52, 92)), 13),
]
KNEE: list[Line] = [
    (((50, 0), (50, 38)), 13),
    (((38, 44), (62, 44)), 14),
    (((36, 56), (64, 56)), 10),
    (((49, 60), (49, 100)), 13),
    (((64, 62), (66, 100)), 5),
]
ELBOW: list[Line] = [
    (((10, 12), (44, 46)), 12),
    (((40, 52), (54, 40)), 13),
    (((52, 54), (92, 78)), 7),
    (((50, 62), (88, 92)), 8),
    (((44, 60), (52, 66)), 11),
]


def bones(lines: list[Line], side: int = 512) -> Pixels:
    """Return a drawn radiograph of other bones, with soft tissue and darker marrow."""
    film = Image.new("L", (side, side), 12)
    draw = ImageDraw.Draw(film)
    for wider, gray in ((16, 70), (0, 185), (-3, 150)):
        for points, width in lines:
            scaled = [(x * side / 100, y * side / 100) for x, y in points]
            radius = max(width + wider, 1) * side / 200
            draw.line(scaled, gray, round(2 * radius), joint="curve")
            for x, y in scaled:
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=gray)
    noise = np.random.default_rng(0).normal(0, 3, (side, side))
    return (np.asarray(film.filter(ImageFilter.GaussianBlur(2))) + noise).clip(0, 255).astype(np.uint8)
