"""Chronological ages, in months."""

from datetime import date

MONTH = 30.4375  # days, 365.25 / 12
OLDEST = 130 * 12  # months; our choice: what is older is a mistake


def months_between(born: date, seen: date) -> float | None:
    """Return the age on a day; `None` where the dates cannot be right."""
    months = (seen - born).days / MONTH
    return months if 0 <= months <= OLDEST else None
