"""Estimate the bits in use of the 16-bit images of a data set.

Converters of radiographs to PNG usually store the scanner's 10 or 12 bits in 16 without declaring it. Scaling
each image by its brightest value would make the brightness of bones depend on a white marker.
"""

from collections import Counter
from collections.abc import Iterable

_MIN_FRACTION = 0.01  # of the 16-bit images; our choice: rarer depths are outliers
_MAX_EXTRA_BITS = 4  # bits; our choice: with 4 unused bits, an image has 16 of 256 gray levels left


def dataset_bit_depths(depths: Iterable[int]) -> list[int]:
    """Return the bit depths of a data set's 16-bit images.

    Adjacent depths (11 and 12 bits) count as one, since some images are darker; separate ones (12 and 16)
    are kept apart. Depths of a single image, or of fewer than 1 % of the images, are ignored.

    Args:
        depths: bits of each image's largest value; 0 if not 16-bit gray.
    """
    counts = Counter(depth for depth in depths if depth)
    minimum = max(2, _MIN_FRACTION * counts.total())
    common = {depth for depth, count in counts.items() if count >= minimum}
    return sorted(depth for depth in common if depth + 1 not in common)


def effective_bits(depth: int, known: list[int]) -> int:
    """Return the bit depth for an image: the lowest of `dataset_bit_depths` that fits it.

    Its own depth if none fits, or if fewer than 16 gray levels would be left; 0 for 0.
    """
    if not depth:
        return 0
    level = next((level for level in known if level >= depth), depth)
    return depth if level - depth >= _MAX_EXTRA_BITS else level


def describe_bit_depths(depths: Iterable[int], known: list[int]) -> str:
    """Describe the bit depths of the 16-bit images; empty if there are none."""
    counts = Counter(effective_bits(depth, known) for depth in depths if depth)
    parts = [f"{count} as {used} bits" for used, count in counts.most_common()]
    return f"16-bit images by bits in use: {', '.join(parts)}" if parts else ""
