"""Outlines of single bones: long bones with their epiphysis, and carpal bones.

Lengths are in millimeters of an adult hand. A bone consists of nested polygons: cortex, trabecular bone and
medullary cavity. The proportions are approximations for a plausible appearance, not measurements.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]  # [n, 2] positions, or [n] distances

CORTEX, TRABECULAR, MEDULLA = 200, 138, 96  # attenuation, 0 to 255

_THETA = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_COS, _SIN = np.cos(_THETA), np.sin(_THETA)
_T = (1 - np.cos(np.linspace(0, np.pi, 15))) / 2  # positions along a shaft, denser at its ends
_WALL = (4 * _T * (1 - _T)) ** 1.3  # relative thickness of the cortex at these positions
_MIDDLE = slice(3, 12)
_CAVITY = np.sin(np.linspace(0, np.pi, 9)) ** 0.4  # the medullary cavity tapers at its ends


@dataclass(frozen=True)
class Shape:
    """A polygon (mm) filled with one level on one layer; later shapes cover earlier ones of their layer."""

    points: Points
    level: int
    layer: int


@dataclass(frozen=True)
class Stage:
    """Developmental stage of a bone; all from 0 to 1.

    Args:
        grown: growth of the epiphysis.
        closed: fusion of the epiphysis with the shaft.
        scar: visibility of the closed growth plate.
        young: amount of cartilage at the ends.
        wall: thickness of the cortex at mid-shaft, as a fraction of the half-width.
    """

    grown: float
    closed: float
    scar: float
    young: float
    wall: float


@dataclass(frozen=True)
class Form:
    """Proportions of a kind of long bone, as fractions of its half-width at the epiphysis."""

    waist: float
    head: float
    taper: float = 2.6  # exponent of the narrowing from the near end to the waist
    flare: float = 3.0  # exponent of the widening towards the far end
    dome: float = 3.2  # power of the superellipse of the epiphysis
    styloid: float = 0.0  # additional thickness of the epiphysis on the thumb side; negative: on the other


@dataclass(frozen=True)
class BoneFrame:
    """Position of a long bone: epiphyseal joint, direction from there, length and half-width, in mm."""

    joint: Points
    direction: Points
    length: float
    width: float

    def place(self, along: Points, across: Points) -> Points:
        """Convert distances along and across the bone to positions in the hand, mm: [n], [n] → [n, 2]."""
        normal = np.array([self.direction[1], -self.direction[0]])
        return self.joint + np.outer(along, self.direction) + np.outer(across, normal)


def long_bone(frame: BoneFrame, form: Form, stage: Stage, room: tuple[float, float, float]) -> list[Shape]:
    """Return the polygons of a long bone: the shaft and the ossified part of the epiphysis.

    `room` are distances from the epiphyseal joint, mm: start of the epiphysis, start and end of the shaft.
    The growth plate lies between epiphysis and shaft.
    """
    near, metaphysis, far = room
    outer, inner, core = _shaft(frame, form, stage, metaphysis, far)
    shapes = [Shape(outer, CORTEX, 0)]
    if stage.grown > 0:
        shapes += _epiphysis(frame, form, stage, near, metaphysis)
    shapes.append(Shape(inner, TRABECULAR, 0))
    if stage.closed > 0:
        reach = frame.width * 0.8 * stage.closed
        shapes.append(Shape(_bar(frame, metaphysis, 1.7, reach), TRABECULAR, 0))
        line = round(TRABECULAR + (CORTEX - TRABECULAR) * stage.scar)
        shapes.append(Shape(_bar(frame, metaphysis, 0.45, reach), line, 0))
    return [*shapes, Shape(core, MEDULLA, 0)]


def _shaft(
    frame: BoneFrame, form: Form, stage: Stage, near: float, far: float
) -> tuple[Points, Points, Points]:
    """Return the outline, the inner wall of the cortex and the medullary cavity."""
    along = near + (far - near) * _T
    corner = np.minimum(np.minimum((along - near + 1) / 2, (far - along + 0.4) / 3), 1) ** 0.35
    flared = (1 - form.waist) * (1 - _T) ** form.taper + (form.head - form.waist) * _T**form.flare
    half = frame.width * (form.waist + flared) * corner
    shell = 0.7 + (frame.width * form.waist * stage.wall - 0.7) * _WALL
    inside = near + 0.8 + (far - near - 1.6) * _T
    cavity = 0.85 * np.maximum(half - 1.25 * shell, 0.1)[_MIDDLE] * _CAVITY
    return (
        _both_sides(frame, along, half),
        _both_sides(frame, inside, np.maximum(half - shell, 0.1)),
        _both_sides(frame, along[_MIDDLE], cavity),
    )


def _epiphysis(frame: BoneFrame, form: Form, stage: Stage, near: float, metaphysis: float) -> list[Shape]:
    """Return the epiphysis: at first a dot in the cartilage, finally a cap as wide as the shaft."""
    room = metaphysis - near
    height = room * (0.26 + 0.56 * stage.grown**0.7 + 0.18 * stage.closed) / 2
    gap = room * (0.14 + 0.18 * (1 - stage.grown)) * (1 - stage.closed)
    half = frame.width * (0.16 + 0.88 * stage.grown**0.75)
    across, along = superellipse(half, height, form.dome * (1 + 0.5 * stage.closed))
    along = np.where(along < 0, along * (1 - form.styloid * across / half), along)
    thin = min(0.7, 0.4 * height)
    middle = metaphysis - gap - height
    return [
        Shape(frame.place(middle + along, across), CORTEX, 0),
        Shape(
            frame.place(middle + along * (1 - thin / height), across * (1 - thin / half)), TRABECULAR + 12, 0
        ),
    ]


def carpal_bone(
    center: Points, axes: tuple[float, float], turn: float, layer: int, grown: float
) -> list[Shape]:
    """Return the polygons of a carpal bone: at first a round dot, finally its angular outline.

    `axes` are the adult half-axes (mm), `turn` their rotation (degrees).
    """
    size = 0.20 + 0.80 * grown**0.62
    mean = (axes[0] * axes[1]) ** 0.5
    a, b = (size * (mean + (axis - mean) * grown**0.5) for axis in axes)
    x, y = superellipse(a, b, 2 + 0.9 * grown)
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    outline = np.stack([x * cos - y * sin, x * sin + y * cos], axis=1)
    inside = max(0.4, 1 - 0.9 / min(a, b))
    return [
        Shape(center + outline, CORTEX - 15, layer),
        Shape(center + inside * outline, TRABECULAR - 4, layer),
    ]


def superellipse(a: float, b: float, power: float) -> tuple[Points, Points]:
    """Return x and y of a superellipse with half-axes `a` and `b`: an ellipse for power 2, else boxier."""
    return a * np.sign(_COS) * np.abs(_COS) ** (2 / power), b * np.sign(_SIN) * np.abs(_SIN) ** (2 / power)


def _both_sides(frame: BoneFrame, along: Points, half: Points) -> Points:
    return frame.place(np.concatenate([along, along[::-1]]), np.concatenate([-half, half[::-1]]))


def _bar(frame: BoneFrame, middle: float, thick: float, reach: float) -> Points:
    return frame.place(middle + thick * np.array([-1.0, 1, 1, -1]), reach * np.array([-1.0, -1, 1, 1]))
