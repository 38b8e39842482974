"""Estimate how many bits the 16-bit images of a data set use.

What converts radiographs to PNG mostly writes the scanner's 10 or 12 bits into 16 and does not say so. Read
by each image's own brightest value, one white marker would change what its bones look like beside others'.
"""

from collections import Counter
from collections.abc import Iterable

_MIN_FRACTION = 0.01  # of the 16-bit images; our choice: what fewer have is a single image's affair
_MAX_EXTRA_BITS = 4  # bits; our choice: read as 4 more than it has, an image has 16 gray levels of 256 left


def dataset_bit_depths(depths: Iterable[int]) -> list[int]:
    """Return the numbers of bits that a data set's 16-bit images are read as.

    Several where a data set has images of several kinds: depths that lie side by side (11 and 12 bits) are
    one kind, of which some images are darker; what no two images and no hundredth of them have is none.

    Args:
        depths: bits of each image's largest value; 0 for what is not 16-bit gray.
    """
    counts = Counter(depth for depth in depths if depth)
    fewest = max(2, _MIN_FRACTION * counts.total())
    common = {depth for depth, count in counts.items() if count >= fewest}
    return sorted(depth for depth in common if depth + 1 not in common)


def effective_bits(depth: int, known: list[int]) -> int:
    """Return the bits that an image is read as: the lowest of `dataset_bit_depths` that holds it.

    Its own depth where none does, or where fewer than 16 gray levels would be left of it; 0 for 0.
    """
    if not depth:
        return 0
    level = next((level for level in known if level >= depth), depth)
    return depth if level - depth >= _MAX_EXTRA_BITS else level


def describe_bit_depths(depths: Iterable[int], known: list[int]) -> str:
    """Say how the 16-bit images are read; nothing where there are none."""
    counts = Counter(effective_bits(depth, known) for depth in depths if depth)
    parts = [f"{count} as {used} bits" for used, count in counts.most_common()]
    return f"16-bit images are read by the bits in use: {', '.join(parts)}" if parts else ""
