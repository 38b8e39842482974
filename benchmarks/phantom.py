"""Phantom images a second on one core, PNG included: `python benchmarks/phantom.py [images] [pixels]`."""

import os
import sys
import time

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy is imported

from boneage_pl.data.phantom import phantom_table, render_radiograph  # noqa: E402
from boneage_pl.data.phantom.dataset import encode_png  # noqa: E402


def main() -> None:
    images, size = ([int(a) for a in sys.argv[1:]] + [200, 500][len(sys.argv) - 1 :])[:2]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    rows = list(phantom_table(images, seed=0).itertuples(index=False))
    render_radiograph(100, True, seed=0, index=0, size=size)  # first call: imports and caches
    drawing = encoding = 0.0
    stored = 0
    for i, row in enumerate(rows):
        start = time.perf_counter()
        image = render_radiograph(row.boneage, row.male, seed=0, index=i, size=size)
        drawn = time.perf_counter()
        stored += len(encode_png(image))
        drawing, encoding = drawing + drawn - start, encoding + time.perf_counter() - drawn
    each = 1000 / images
    print(f"{size} px: {images / (drawing + encoding):.1f} images/s on one core", end=" ")
    print(f"({drawing * each:.1f} ms drawing, {encoding * each:.1f} ms PNG, {stored // images} bytes)")


if __name__ == "__main__":
    main()
