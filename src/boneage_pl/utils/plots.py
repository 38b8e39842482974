"""Image grid, and text in figures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

TILE_INCHES = 2.0  # width of an image
GAP = 0.06  # as a fraction of the width
LINE = 0.1  # height of a title line, as a fraction of the width


def literal(name: str) -> str:
    """Escape a text for matplotlib: no formulas between dollars, no hidden labels with a leading _."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def image_grid(images: NDArray[np.generic], titles: Sequence[str], columns: int = 4) -> Figure:
    """Draw a grid of gray images with titles, in a single axes, which is ten times as fast as one each.

    Args:
        images: [N, H, W], uint8, or floating point in [0, 1].
        titles: one per image, with one or more lines.
        columns: images per row.
    """
    lines = max((title.count("\n") + 1 for title in titles), default=1)
    height = images.shape[1] / images.shape[2]
    step = height + LINE * lines + GAP
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(TILE_INCHES * columns * (1 + GAP), TILE_INCHES * rows * step))
    axes = figure.add_axes((0, 0, 1, 1))
    highest = 255 if images.dtype == np.uint8 else 1
    for at, (image, title) in enumerate(zip(images, titles, strict=True)):
        left, top = (at % columns) * (1 + GAP), -(at // columns) * step - LINE * lines
        extent = (left, left + 1, top - height, top)
        axes.imshow(image, cmap="gray", vmin=0, vmax=highest, extent=extent)
        axes.text(left + 0.5, top + 0.01, literal(title), ha="center", va="bottom", fontsize=8)
    axes.set(xlim=(-GAP / 2, columns * (1 + GAP) - GAP / 2), ylim=(-rows * step, 0))
    axes.axis("off")
    return figure
