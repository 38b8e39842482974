"""Skeleton of a left hand in dorsal view, by age and sex.

Hand coordinates: millimeters of an adult hand, x towards the thumb, y towards the fingertips, origin in the
capitate. Lengths, widths and positions approximate adult anatomy; they are not measurements from a source.

Radiographs are framed to the hand, so all hands have an adult outline and adult joints. Only the ossified
parts between them change with age: the outline contains no information on it.
"""

from dataclasses import dataclass

import numpy as np

from boneage_pl.data.phantom.bones import BoneFrame, Form, Points, Shape, Stage, carpal_bone, long_bone
from boneage_pl.data.phantom.ossification import OSSIFICATION_CENTERS, RAY_DELAY, fusion, growth, scar

RAYS = (1, 2, 3, 4, 5)
PARTS = ("metacarpal", "proximal_phalanx", "middle_phalanx", "distal_phalanx")

# Distances between the joints of each ray, mm; the thumb has no middle phalanx.
_LENGTHS = {
    1: (48, 35, 0, 26),
    2: (68, 43, 26, 20),
    3: (66, 48, 30, 21),
    4: (59, 45, 29, 21),
    5: (54, 36, 21, 19),
}
_WIDTHS = {  # half-widths at the epiphyseal end, mm
    1: (7.2, 7.2, 0, 6.0),
    2: (7.4, 7.2, 5.9, 4.6),
    3: (7.4, 7.5, 6.3, 5.0),
    4: (6.4, 6.9, 6.0, 4.8),
    5: (6.2, 6.2, 5.1, 4.1),
}
_BASES = {1: (22.0, 8.5), 2: (12.0, 14.5), 3: (2.0, 14.0), 4: (-7.0, 12.5), 5: (-15.0, 9.5)}
_ANGLES = {1: 42.0, 2: 8.0, 3: 0.0, 4: -8.0, 5: -17.0}  # of the metacarpals, degrees towards the thumb
_FAN = {1: -0.6, 2: 0.9, 3: 0.05, 4: -0.7, 5: -1.5}  # factor of the spread for each finger
_FORMS = {
    "metacarpal": Form(waist=0.54, head=0.80, dome=2.2),
    "proximal_phalanx": Form(waist=0.58, head=0.78),
    "middle_phalanx": Form(waist=0.58, head=0.80),
    "distal_phalanx": Form(waist=0.42, head=0.64, flare=4.0),
    "radius": Form(waist=0.47, head=0.5, taper=11.0, dome=2.8, styloid=0.45),
    "ulna": Form(waist=0.68, head=0.7, taper=14.0, dome=2.8, styloid=-0.35),
}
# Center, half-axes (mm), rotation (degrees), layer; overlapping neighbors are on different layers.
_CARPALS = {
    "capitate": ((0.5, 1.0), (7.6, 12.6), -4.0, 1),
    "hamate": ((-11.6, 2.6), (8.4, 10.6), 14.0, 2),
    "triquetrum": ((-17.6, -8.6), (7.6, 6.6), 30.0, 1),
    "lunate": ((-4.6, -12.6), (9.2, 7.4), 8.0, 2),
    "scaphoid": ((11.0, -7.6), (7.0, 12.4), -38.0, 1),
    "trapezium": ((20.4, 3.4), (8.2, 7.4), 30.0, 2),
    "trapezoid": ((12.0, 6.6), (6.6, 7.2), 0.0, 1),
    "pisiform": ((-19.0, -5.0), (4.8, 5.6), 20.0, 2),
}
# Joint, half-width at the growth plate, height of epiphysis and growth plate; mm.
_FOREARM = {"radius": ((5.0, -20.0), 13.6, 9.5), "ulna": ((-17.5, -23.0), 7.4, 8.0)}
_FOREARM_LENGTH = 260.0  # mm; beyond the lower edge of every image


@dataclass(frozen=True)
class Segment:
    """One bone of a ray, from its proximal to its distal joint, with its half-width; mm."""

    start: Points
    end: Points
    width: float


@dataclass(frozen=True)
class Skeleton:
    """The bones at an age, and the segments of each ray from the metacarpal on, which do not depend on it."""

    shapes: list[Shape]
    rays: dict[int, list[Segment]]


class HandVariation:
    """Random variation of one hand, independent of the age.

    Ossification centers are early or late (standard deviation: 3 % of the age and 1 month); bones vary in
    length and thickness, fingers in position.
    """

    def __init__(self, rng: np.random.Generator):
        centers = [*OSSIFICATION_CENTERS, *(f"{part}_{ray}" for part in PARTS for ray in RAYS)]
        self.pace = dict(zip(centers, rng.normal(0, 1, len(centers)).clip(-2, 2), strict=True))
        self.length = dict(zip(RAYS, rng.normal(1, 0.025, (5, 4)).clip(0.94, 1.06), strict=True))
        self.bend = dict(zip(RAYS, rng.normal(0, 2.0, (5, 4)), strict=True))  # degrees
        self.thickness = float(rng.normal(1, 0.05))
        self.cortex = float(rng.normal(1, 0.08))
        self.size = float(np.clip(rng.normal(1, 0.035), 0.92, 1.07))
        self.spread = float(rng.uniform(0, 9))  # degrees between neighboring fingers
        self.thumb = float(rng.normal(0, 6))  # degrees

    def effective_age(self, center: str, age: float) -> float:
        """Return the age at which the center of an average child is equally developed, months."""
        return max(0.0, (age - self.pace[center]) / (1 + 0.03 * self.pace[center]))


def build_skeleton(age: float, male: bool, build: HandVariation) -> Skeleton:
    """Return the outlines of all bones that are visible at `age` months."""
    shapes, rays = _forearm(age, male, build), {}
    for ray in RAYS:
        rays[ray] = _segments(ray, build)
        for part, segment in rays[ray].items():
            shapes += _ray_bone(part, ray, segment, age, male, build)
    shapes += _carpus(age, male, build) + _sesamoid(age, male, build, rays[1]["metacarpal"])
    return Skeleton(shapes, {ray: list(parts.values()) for ray, parts in rays.items()})


def _segments(ray: int, build: HandVariation) -> dict[str, Segment]:
    angle = _ANGLES[ray] + 0.25 * build.spread * _FAN[ray] + (build.thumb if ray == 1 else 0.0)
    joint, segments = np.array(_BASES[ray]), {}
    for i, part in enumerate(PARTS):
        angle += build.bend[ray][i] if i > 0 else 0.0
        if i == 1:
            angle += build.spread * _FAN[ray] - (10.0 if ray == 1 else 0.0)
        if _LENGTHS[ray][i] > 0:
            direction = np.array([np.sin(np.radians(angle)), np.cos(np.radians(angle))])
            end = joint + _LENGTHS[ray][i] * build.length[ray][i] * direction
            segments[part] = Segment(joint, end, _WIDTHS[ray][i] * build.thickness)
            joint = end
    return segments


def _stage(kind: str, center: str, age: float, male: bool, build: HandVariation, delay: float = 1.0) -> Stage:
    own = build.effective_age(center, age)
    return Stage(
        growth(kind, own, male, delay),
        fusion(kind, own, male),
        scar(kind, own, male),
        young=float(np.exp(-age / 45)),  # approximation: cartilage at the ends ossifies in the first years
        # the cortex thickens throughout childhood (Garn, "The Earlier Gain and the Later Loss of Cortical
        # Bone", 1970); the rate is an approximation
        wall=build.cortex * (0.20 + 0.34 * min(age, 228) / 228),
    )


def _ray_bone(
    part: str, ray: int, segment: Segment, age: float, male: bool, build: HandVariation
) -> list[Shape]:
    stage = _stage(part, f"{part}_{ray}", age, male, build, RAY_DELAY[ray])
    start, end = segment.start, segment.end
    if part == "metacarpal" and ray != 1:  # their epiphysis is at the distal end
        start, end = end, start
    length = float(np.linalg.norm(end - start))
    frame = BoneFrame(start, (end - start) / length, length, segment.width * (1 + 0.18 * stage.young))
    near = length * (0.022 + 0.05 * stage.young)
    metaphysis = length * (0.13 + 0.07 * stage.young) + 1.2
    far = length * (0.978 - 0.07 * stage.young)
    return long_bone(frame, _FORMS[part], stage, (near, metaphysis, far))


def _forearm(age: float, male: bool, build: HandVariation) -> list[Shape]:
    shapes = []
    for name, (joint, width, height) in _FOREARM.items():
        stage = _stage(name, name, age, male, build)
        frame = BoneFrame(np.array(joint), np.array([0.02, -1.0]), _FOREARM_LENGTH, width * build.thickness)
        metaphysis = height * (1 + 0.7 * stage.young)
        shapes += long_bone(frame, _FORMS[name], stage, (0.8 + 2 * stage.young, metaphysis, _FOREARM_LENGTH))
    return shapes


def _carpus(age: float, male: bool, build: HandVariation) -> list[Shape]:
    shapes = []
    for name, (center, axes, turn, layer) in _CARPALS.items():
        grown = growth(name, build.effective_age(name, age), male)
        if grown > 0:
            shapes += carpal_bone(np.array(center), axes, turn, layer, grown)
    return shapes


def _sesamoid(age: float, male: bool, build: HandVariation, metacarpal: Segment) -> list[Shape]:
    """Return the adductor sesamoid: a small oval on the ulnar side of the thumb metacarpal's head."""
    grown = growth("thumb_sesamoid", build.effective_age("thumb_sesamoid", age), male)
    if grown == 0:
        return []
    along = (metacarpal.end - metacarpal.start) / np.linalg.norm(metacarpal.end - metacarpal.start)
    center = metacarpal.end - 3.5 * along + 6.0 * np.array([-along[1], along[0]])
    return carpal_bone(center, (2.6, 3.2), -30.0, 1, grown)
