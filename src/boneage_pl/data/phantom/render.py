"""Render a skeleton and its soft tissue as a radiograph.

Nothing is normalized by the content, so the background depends on the acquisition alone, not on the bones.
"""

from statistics import NormalDist

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from boneage_pl.data.phantom.acquisition import (
    BUILD,
    LETTERS,
    NOISE,
    Acquisition,
    L,
    rng_for,
    sample_acquisition,
)
from boneage_pl.data.phantom.bones import Points, Shape
from boneage_pl.data.phantom.skeleton import RAYS, HandVariation, Segment, Skeleton, build_skeleton

FOREARM, PALM, FINGER, TIP = 235, 235, 190, 165  # attenuation, 0 to 255

_CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 20, endpoint=False)) for f in (np.cos, np.sin)], axis=1)


def flesh_polygons(rays: dict[int, list[Segment]], thickness: float) -> list[tuple[Points, int]]:
    """Return the polygons of the soft tissue (mm) with their attenuation; later ones cover earlier ones.

    `thickness` is that of the tissue around the bones, relative to the average.
    """
    margin = 3.4 * thickness
    polygons: list[tuple[Points, int]] = []
    for ray in RAYS:
        polygons += _finger(rays[ray], margin)
    left, right = -25.5 - margin, 21.0 + margin
    forearm = np.array(
        [
            *((left, 2), (left, -22), (left - 4, -70), (left - 14, -300)),
            *((right + 12, -300), (right + 2, -70), (right - 1, -30), (right, -10), (right, 2)),
        ]
    )
    return [*polygons, (forearm, FOREARM), (_palm(rays, margin), PALM)]


def _finger(segments: list[Segment], margin: float) -> list[tuple[Points, int]]:
    """Return capsules around the bones of a finger; the fingertip extends beyond the last bone."""
    polygons = []
    for i in reversed(range(len(segments))):
        segment = segments[i]
        last = i == len(segments) - 1
        along = (segment.end - segment.start) / np.linalg.norm(segment.end - segment.start)
        end = segment.end + (0.2 * margin * along if last else 0)
        near = segment.width + margin
        far = 0.86 * segment.width + margin if last else segments[i + 1].width + margin
        polygons.append((_capsule(segment.start, end, near, far), TIP if last else FINGER if i > 0 else PALM))
    return polygons


def _capsule(start: Points, end: Points, near: float, far: float) -> Points:
    """Return the outline of a capsule: half a circle around each end."""
    along = (end - start) / np.linalg.norm(end - start)
    ahead = _CIRCLE @ along >= 0
    first = np.argmax(ahead & ~np.roll(ahead, 1))
    order = np.roll(np.arange(len(_CIRCLE)), -first)
    front, back = order[ahead[order]], order[~ahead[order]]
    return np.concatenate([end + far * _CIRCLE[front], start + near * _CIRCLE[back]])


def _palm(rays: dict[int, list[Segment]], margin: float) -> Points:
    """Return the outline of the palm from the wrist to the webs between the fingers."""
    knuckles = {ray: rays[ray][0].end for ray in RAYS}
    webs = {ray: rays[ray][1].start + 0.42 * (rays[ray][1].end - rays[ray][1].start) for ray in RAYS}
    ulnar, radial = np.array([-1.0, 0.15]), np.array([1.0, 0.1])
    outline = [
        (-25.5 - margin, -16.0),
        (-24.5 - margin, 8.0),
        knuckles[5] + (rays[5][0].width + 1.6 * margin) * ulnar,
        webs[5] + (rays[5][1].width + margin) * 0.9 * ulnar,
        (webs[5] + webs[4]) / 2,
        (webs[4] + webs[3]) / 2,
        (webs[3] + webs[2]) / 2,
        webs[2] + (rays[2][1].width + margin) * 0.9 * radial,
        knuckles[2] + (rays[2][0].width + 1.2 * margin) * radial,
        0.55 * knuckles[2] + 0.45 * knuckles[1] + np.array([4.0, -4.0]),
        knuckles[1] + np.array([-4.0, 8.0]),
        knuckles[1] + np.array([7.0, -6.0]),
        rays[1][0].start + np.array([9.0 + margin, -6.0]),
        (21.0 + margin, -16.0),
    ]
    return np.array(outline)


Floats = npt.NDArray[np.float32]

CANVAS_SIZE = 270.0  # mm; height of the image
CANVAS_CENTER = np.array([4.0, 58.0])  # mm; the center of the image
OVERSAMPLING = 2  # bones are drawn larger and averaged, for smooth edges
STEPS = 2048  # of the tone curve, from 0 to MAX_ATTENUATION
MAX_ATTENUATION = 4.0
_QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)], np.float32)

_SECOND_BONE = [
    round(0.55 * level) for level in range(256)
]  # overlapping bones are not superimposed over their whole depth


def render_radiograph(bone_age: float, male: bool, *, seed: int, index: int, size: int = 500) -> Image.Image:
    """Return a synthetic left-hand radiograph: mode `L`, `size` × `size` pixels.

    It depends on the arguments alone; only its bones depend on `bone_age` (months) and `male`.
    """
    conditions = sample_acquisition(seed, index)
    build = HandVariation(rng_for(seed, index, BUILD))
    skeleton = build_skeleton(bone_age, male, build)
    to_pixels = _Placement(conditions, build.size, size)
    flesh = _soft_tissue(skeleton, to_pixels, conditions.flesh)
    bone = _bones(skeleton.shapes, to_pixels, conditions.blur)
    return _expose(flesh, bone, conditions, rng_for(seed, index, NOISE))


class _Placement:
    """Converts hand coordinates (mm) to pixels of a square image: [n, 2] → [n, 2]."""

    def __init__(self, conditions: Acquisition, scale: float, size: int):
        self.size = size
        self.per_mm = conditions.zoom * scale * size / CANVAS_SIZE
        cos, sin = np.cos(np.radians(conditions.tilt)), np.sin(np.radians(conditions.tilt))
        # rotation and scaling, with y downwards
        self.matrix = self.per_mm * np.array([[cos, sin], [sin, -cos]])
        self.offset = (np.array([0.5, 0.5]) + conditions.shift) * size - CANVAS_CENTER @ self.matrix

    def __call__(self, points: Points) -> Points:
        return points @ self.matrix + self.offset


def _bones(shapes: list[Shape], to_pixels: _Placement, blur: float) -> Image.Image:
    """Return the attenuation by bone, 0 to 255; overlapping layers are added."""
    side = to_pixels.size * OVERSAMPLING
    layers = [Image.new("L", (side, side)) for _ in range(3)]
    pens = [ImageDraw.Draw(layer) for layer in layers]
    for shape in shapes:
        points = (to_pixels(shape.points) * OVERSAMPLING).ravel().tolist()
        pens[shape.layer].polygon(points, fill=shape.level)
    total = layers[0].reduce(OVERSAMPLING)
    for layer in layers[1:]:
        total = ImageChops.add(total, layer.reduce(OVERSAMPLING).point(_SECOND_BONE))
    return total.filter(ImageFilter.BoxBlur(blur * to_pixels.size / 500))


def _soft_tissue(skeleton: Skeleton, to_pixels: _Placement, thickness: float) -> Image.Image:
    """Return the attenuation by soft tissue, 0 to 255, blurred at half the size."""
    canvas = Image.new("L", (to_pixels.size, to_pixels.size))
    pen = ImageDraw.Draw(canvas)
    for points, level in flesh_polygons(skeleton.rays, thickness):
        pen.polygon(to_pixels(points).ravel().tolist(), fill=level)
    mm = to_pixels.per_mm / 2
    canvas = canvas.reduce(2)
    skin = canvas.filter(ImageFilter.GaussianBlur(0.6 * mm))
    body = canvas.filter(ImageFilter.BoxBlur(3.5 * mm)).filter(ImageFilter.BoxBlur(3.5 * mm))
    rounded = ImageChops.blend(ImageChops.multiply(skin, body), skin, 0.35)
    return rounded.resize((to_pixels.size, to_pixels.size), Image.Resampling.BILINEAR)


def _expose(
    flesh: Image.Image, bone: Image.Image, conditions: Acquisition, rng: np.random.Generator
) -> Image.Image:
    size = flesh.width
    attenuation = np.asarray(flesh, np.float32) * np.float32(0.50 / 255)
    attenuation += np.asarray(bone, np.float32) * _trabeculae(size, rng) * np.float32(conditions.density)
    across = np.linspace(-1, 1, size, dtype=np.float32)
    beam = 1 + conditions.heel[0] * across[None, :] + conditions.heel[1] * across[:, None]
    attenuation *= beam * np.float32(conditions.exposure * STEPS / MAX_ATTENUATION)
    gray = _make_tone_curve(conditions).take(attenuation.astype(np.int32), mode="clip")
    gray += _scatter(flesh) * np.float32(conditions.scatter)
    gray = _collimate(gray, conditions)
    gray += _noise(size, conditions.noise, rng)
    image = Image.fromarray(gray.clip(0, 255).astype(np.uint8))
    _draw_marker(image, conditions)
    return image


def _scatter(flesh: Image.Image) -> Floats:
    """Return the gray levels that scattered radiation adds, for a scatter of 1."""
    small = flesh.resize((32, 32), Image.Resampling.BOX).filter(ImageFilter.GaussianBlur(2.5))
    return np.asarray(small.resize(flesh.size, Image.Resampling.BILINEAR), np.float32)


def _trabeculae(size: int, rng: np.random.Generator) -> Floats:
    """Return the attenuation per gray level of bone, with the texture of trabecular bone."""
    grain = Image.fromarray((1 + _noise(size // 2, 0.1, rng)) * np.float32(0.95 / 255))
    return np.asarray(grain.resize((size, size), Image.Resampling.BILINEAR))


def _noise(size: int, deviation: float, rng: np.random.Generator) -> Floats:
    """Return normal noise from a table of 256 quantiles, which is faster than sampling."""
    drawn = np.frombuffer(rng.bytes(size * size), np.uint8).reshape(size, size)
    return (_QUANTILES * np.float32(deviation)).take(drawn)


def _make_tone_curve(conditions: Acquisition) -> Floats:
    """Return the gray level, 0 to 255, for each step of attenuation."""
    attenuation = np.linspace(0, MAX_ATTENUATION, STEPS)
    shown = (1 - np.exp(-1.5 * attenuation)) ** conditions.gamma
    return (255 * (conditions.fog + (1 - conditions.fog) * shown)).astype(np.float32)


def _collimate(gray: Floats, conditions: Acquisition) -> Floats:
    """Cover the area outside the collimated field, which may be slightly rotated."""
    left, top, right, bottom = conditions.field
    if left < 0:
        return gray
    size = gray.shape[0]
    corners = _rotate_points(
        np.array([[left, top], [right, top], [right, bottom], [left, bottom]]), conditions.field_tilt
    )
    mask = Image.new("L", (size, size))
    ImageDraw.Draw(mask).polygon((corners * size).ravel().tolist(), fill=255)
    return np.where(np.asarray(mask) > 0, gray, np.float32(255 * conditions.shutter))


def _rotate_points(points: Points, degrees: float, center: tuple[float, float] = (0.5, 0.5)) -> Points:
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return (points - center) @ np.array([[cos, sin], [-sin, cos]]) + center


def _draw_marker(image: Image.Image, conditions: Acquisition) -> None:
    """Draw the L marker with the technologist's initials below it."""
    x, y, height, angle = conditions.marker
    size, pen = image.width, ImageDraw.Draw(image)

    def pixels(points: Points) -> list[float]:
        return (_rotate_points(np.array([x, y]) + height * points, angle, (x, y)) * size).ravel().tolist()

    if conditions.marker_plate > 0:
        plate = np.array([[-0.5, -0.4], [1.3, -0.4], [1.3, 2.1], [-0.5, 2.1]])
        pen.polygon(pixels(plate), fill=round(255 * conditions.marker_plate))
    stroke = height * size / 5
    pen.line(pixels(np.array(L)), fill=245, width=max(1, round(stroke)), joint="curve")
    for i, letter in enumerate(conditions.initials):
        strokes = np.array(LETTERS[letter]) * 0.42 + [0.55 * i - 0.35, 1.4]
        pen.line(pixels(strokes), fill=225, width=max(1, round(stroke / 3)))
