"""Chronological ages, in months."""

from datetime import date

DAYS_PER_MONTH = 30.4375  # days, 365.25 / 12
MAX_AGE_MONTHS = 130 * 12  # months; our choice: what is older is a mistake


def months_between(born: date, seen: date) -> float | None:
    """Return the age on a day; `None` where the dates cannot be right."""
    months = (seen - born).days / DAYS_PER_MONTH
    return months if 0 <= months <= MAX_AGE_MONTHS else None
