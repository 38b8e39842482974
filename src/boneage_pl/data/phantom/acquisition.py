"""Acquisition parameters of a synthetic radiograph: exposure, collimation, marker.

Each purpose has its own generator, seeded by (seed, index, purpose), so that its numbers do not depend on how
many another purpose draws.
"""

from dataclasses import dataclass

import numpy as np

TABLE, BUILD, PLACE, EXPOSURE, MARKER, NOISE = range(6)  # one generator for each purpose

# Letters of straight strokes: points in the unit square (x right, y down).
LETTERS = (
    ((0, 1), (0.5, 0), (1, 1), (0.75, 0.5), (0.25, 0.5)),  # A
    ((1, 0), (0, 0), (0, 0.5), (0.7, 0.5), (0, 0.5), (0, 1), (1, 1)),  # E
    ((1, 0), (0, 0), (0, 0.5), (0.7, 0.5), (0, 0.5), (0, 1)),  # F
    ((0, 0), (0, 1), (0, 0.5), (1, 0.5), (1, 0), (1, 1)),  # H
    ((0, 0), (0, 1), (0, 0.5), (1, 0), (0, 0.5), (1, 1)),  # K
    ((0, 1), (0, 0), (0.5, 0.6), (1, 0), (1, 1)),  # M
    ((0, 1), (0, 0), (1, 1), (1, 0)),  # N
    ((0, 0), (1, 0), (0.5, 0), (0.5, 1)),  # T
)
L = ((0, 0), (0, 1), (0.8, 1))


def rng_for(seed: int, index: int, purpose: int) -> np.random.Generator:
    """Return the generator for one purpose of one image."""
    return np.random.default_rng([seed, index, purpose])


@dataclass(frozen=True)
class Acquisition:
    """Acquisition parameters of one image; lengths in fractions of the image, angles in degrees."""

    zoom: float
    shift: tuple[float, float]
    tilt: float
    flesh: float  # thickness of the soft tissue around the bones, 1 on average
    density: float  # of bone relative to soft tissue, 1 on average
    exposure: float
    fog: float  # gray of the background, 0 to 1
    gamma: float
    heel: tuple[float, float]  # heel effect: decrease of the beam along x and y
    scatter: float
    blur: float  # pixels at 500
    noise: float  # standard deviation in gray levels
    field: tuple[float, float, float, float]  # left, top, right and bottom edge of the collimated field
    field_tilt: float
    shutter: float  # gray outside the field, 0 to 1
    marker: tuple[float, float, float, float]  # x, y, size, angle
    marker_plate: float  # gray of the plate behind the L, 0 to 1
    initials: tuple[int, ...]


def sample_acquisition(seed: int, index: int) -> Acquisition:
    """Draw the acquisition parameters of an image, a function of (seed, index)."""
    place, light, mark = (rng_for(seed, index, purpose) for purpose in (PLACE, EXPOSURE, MARKER))
    collimated = place.random() < 0.35
    edges = place.uniform(0.0, 0.06, 4) if collimated else np.full(4, -0.5)
    side = mark.random() < 0.75  # beside the wrist, or in a corner above the fingers
    x, y = mark.uniform(0.10, 0.16), mark.uniform(0.60, 0.88) if side else mark.uniform(0.10, 0.16)
    return Acquisition(
        zoom=float(np.clip(place.normal(0.97, 0.07), 0.78, 1.08)),
        shift=(float(place.normal(0, 0.025)), float(place.normal(0, 0.02))),
        tilt=float(np.clip(place.normal(0, 6), -15, 15)),
        field=(float(edges[0]), float(edges[1]), float(1 - edges[2]), float(1 - edges[3])),
        field_tilt=float(place.normal(0, 2.5)),
        flesh=float(np.clip(light.normal(1, 0.10), 0.75, 1.3)),
        density=float(np.clip(light.normal(1, 0.10), 0.75, 1.3)),
        exposure=float(np.clip(light.lognormal(-0.05, 0.2), 0.6, 1.4)),
        fog=float(light.choice([0.01, 0.03, 0.06, 0.12], p=[0.4, 0.3, 0.2, 0.1])),
        gamma=float(light.uniform(0.85, 1.35)),
        heel=(float(light.normal(0, 0.05)), float(light.normal(0, 0.05))),
        scatter=float(light.uniform(0.03, 0.15)),
        blur=float(light.uniform(0.4, 0.9)),
        noise=float(light.uniform(1.5, 5.0)),
        shutter=float(light.choice([0.0, 0.0, 0.08, 0.2])),
        marker=(float(x), float(y), float(mark.uniform(0.035, 0.055)), float(mark.normal(0, 9))),
        marker_plate=float(mark.choice([0.0, 0.05, 0.15])),
        initials=tuple(int(letter) for letter in mark.integers(0, len(LETTERS), int(mark.integers(0, 4)))),
    )
