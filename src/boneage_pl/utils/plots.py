"""Grid of images as a figure; names in figures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

TILE_INCHES = 2.0  # of an image's width
GAP = 0.06  # of it
LINE = 0.1  # of it, a line of a title


def literal(name: str) -> str:
    """Return a text that matplotlib shows as it is: no formula between dollars; not hidden for its _."""
    return (" " if name.startswith("_") else "") + name.replace("$", r"\$")


def image_grid(images: NDArray[np.generic], titles: Sequence[str], columns: int = 4) -> Figure:
    """Draw gray images in rows, each below its title.

    All in one pair of axes, which costs a tenth of a pair for each.

    Args:
        images: [N, H, W], uint8, or floating point in [0, 1].
        titles: of one or more lines.
        columns: images in a row.
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
