"""Parse a typed age or dates."""

import re
from datetime import date

from boneage_pl.data.images.dicom import MAX_AGE_MONTHS, months_between
from boneage_pl.errors import BoneAgeError

_NUMBER = r"(\d{1,4}(?:[.,]\d+)?)"
_AGE = re.compile(
    rf"(?:{_NUMBER}\s*(?:y|yr|yrs|year|years)(?![a-z]))?[\s,;]*(?:{_NUMBER}\s*(?:m|mo|mos|month|months)(?![a-z]))?",
    re.IGNORECASE,
)


def parse_age(text: str, born: str, seen: str) -> float | None:
    """Return a chronological age in months; `None` if all fields are empty.

    Args:
        text: `9 y 2 m`, `9.5 y` or `110 m`.
        born: the date of birth, as `2014-05-30`; with `seen` instead of `text`.
        seen: the day of the radiograph.

    Raises:
        BoneAgeError: it cannot be understood, or age and dates are given and differ by more than a month.
    """
    typed, dates = _parse_text(text.strip()), _between(born.strip(), seen.strip())
    if typed is not None and dates is not None and abs(typed - dates) > 1:
        raise BoneAgeError(
            f"The age is {typed:.0f} months, and the dates make {dates:.0f}: leave one of them empty."
        )
    return dates if dates is not None else typed


def _parse_text(text: str) -> float | None:
    if not text:
        return None
    match = _AGE.fullmatch(text)
    if not match or not any(match.groups()):
        raise BoneAgeError(f"The age “{text[:40]}” is not understood. Write 9 y 2 m, 9.5 y or 110 m.")
    years, months = (float(part.replace(",", ".")) if part else 0.0 for part in match.groups())
    if (age := 12 * years + months) > MAX_AGE_MONTHS:
        raise BoneAgeError(f"The age “{text[:40]}” is more than {MAX_AGE_MONTHS // 12} years.")
    return age


def _between(born: str, seen: str) -> float | None:
    if not born and not seen:
        return None
    if not born or not seen:
        raise BoneAgeError("An age needs both dates: of birth, and of the radiograph.")
    age = months_between(_date(born), _date(seen))
    if age is None:
        raise BoneAgeError(f"From {born} to {seen} is no age of 0 to {MAX_AGE_MONTHS // 12} years.")
    return age


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BoneAgeError(f"The date “{text[:40]}” is not understood. Write it as 2014-05-30.") from None
