"""An answer on an axis of ages: where things stand on a drawing of a fixed width."""

from dataclasses import dataclass

WIDTH = 640
_LEFT, _RIGHT = 22, 22
_OLDEST = 228  # months, 19 years: the ages of the atlas, and of the RSNA's children


@dataclass(frozen=True)
class Band:
    """A range of ages on the axis: `start` and `width` of the drawing."""

    start: float
    width: float


@dataclass(frozen=True)
class Axis:
    """Ages from 0 to 19 years, or on to `oldest` where that is more.

    Args:
        oldest: months that must be on it.
    """

    oldest: float = _OLDEST

    @property
    def width(self) -> int:
        """Of the drawing."""
        return WIDTH

    def at(self, months: float) -> float:
        """Return where an age stands."""
        end = max(self.oldest, _OLDEST)
        share = min(max(months / end, 0.0), 1.0)
        return round(_LEFT + share * (WIDTH - _LEFT - _RIGHT), 1)

    def band(self, low: float, high: float) -> Band:
        """Return a range of ages."""
        return Band(self.at(low), round(self.at(high) - self.at(low), 1))

    @property
    def ticks(self) -> list[tuple[float, int]]:
        """Where whole years stand, every second or fewer, and which they are."""
        years = int(max(self.oldest, _OLDEST) // 12)
        return [(self.at(12 * year), year) for year in range(0, years + 1, max(2, years // 9))]
