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


def parse_age(text: str, birth_date: str, radiograph_date: str) -> float | None:
    """Return a chronological age in months; `None` if all fields are empty.

    Args:
        text: `9 y 2 m`, `9.5 y` or `110 m`.
        birth_date: `2014-05-30`; with `radiograph_date`, instead of `text`.
        radiograph_date: day of the radiograph, likewise.

    Raises:
        BoneAgeError: a field cannot be parsed, or age and dates differ by more than a month.
    """
    typed, dates = _parse_text(text.strip()), _between(birth_date.strip(), radiograph_date.strip())
    if typed is not None and dates is not None and abs(typed - dates) > 1:
        raise BoneAgeError(
            f"The age is {typed:.0f} months, but {dates:.0f} by the dates: leave one of them empty."
        )
    return dates if dates is not None else typed


def _parse_text(text: str) -> float | None:
    if not text:
        return None
    match = _AGE.fullmatch(text)
    if not match or not any(match.groups()):
        raise BoneAgeError(f"The age “{text[:40]}” cannot be parsed. Write 9 y 2 m, 9.5 y or 110 m.")
    years, months = (float(part.replace(",", ".")) if part else 0.0 for part in match.groups())
    if (age := 12 * years + months) > MAX_AGE_MONTHS:
        raise BoneAgeError(f"The age “{text[:40]}” is more than {MAX_AGE_MONTHS // 12} years.")
    return age


def _between(birth_date: str, radiograph_date: str) -> float | None:
    if not birth_date and not radiograph_date:
        return None
    if not birth_date or not radiograph_date:
        raise BoneAgeError("Enter both dates: of birth and of the radiograph.")
    age = months_between(_date(birth_date), _date(radiograph_date))
    if age is None:
        raise BoneAgeError(
            f"{birth_date} and {radiograph_date} do not give an age of 0 to {MAX_AGE_MONTHS // 12} years."
        )
    return age


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise BoneAgeError(f"The date “{text[:40]}” cannot be parsed. Write it as 2014-05-30.") from None
