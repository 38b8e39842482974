"""The soft tissue of the hand: outlines laid around the rays of the skeleton."""

import numpy as np

from boneage_pl.data.phantom.bones import Points
from boneage_pl.data.phantom.skeleton import RAYS, Segment

FOREARM, PALM, FINGER, TIP = 235, 235, 190, 165  # attenuation on a scale to 255

_CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 20, endpoint=False)) for f in (np.cos, np.sin)], axis=1)


def flesh_polygons(rays: dict[int, list[Segment]], thickness: float) -> list[tuple[Points, int]]:
    """Return polygons (mm) with their attenuation, thinnest first; later ones cover earlier ones.

    `thickness` is the depth of the tissue over the bones as a multiple of the average.
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
    """Capsules from the metacarpal to the fingertip, which reaches a little past the bone."""
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
    """The outline around a circle at each end: half of each circle, joined."""
    along = (end - start) / np.linalg.norm(end - start)
    ahead = _CIRCLE @ along >= 0
    first = np.argmax(ahead & ~np.roll(ahead, 1))
    order = np.roll(np.arange(len(_CIRCLE)), -first)
    front, back = order[ahead[order]], order[~ahead[order]]
    return np.concatenate([end + far * _CIRCLE[front], start + near * _CIRCLE[back]])


def _palm(rays: dict[int, list[Segment]], margin: float) -> Points:
    """The palm from wrist to webs: around the ulnar edge, between the fingers, across the thumb's web."""
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
