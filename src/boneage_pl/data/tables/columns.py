"""Identify the columns of a label table: id, bone age, sex."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from boneage_pl.data.tables.spec import AgeUnit, DatasetSpec, format_options
from boneage_pl.errors import BoneAgeError

SexName = Literal["male", "female"]

# Names without case, blanks and punctuation: those of the RSNA's three tables and common ones.
ALIASES = {
    "id": "id imageid caseid patientid image case patient imagename filename file path imagepath filepath",
    "bone_age": "boneage groundtruthboneage skeletalage",
    "male": "male sex gender patientsex",
    "female": "female",
    "patient": "patient patientid child childid subject subjectid",  # if it is not the id
    "chronological_age": "chronologicalage chronage",
}
OPTIONAL = ("patient", "chronological_age")
_ROLES = {"id": "the id", "bone_age": "the bone age", "sex": "the sex", "patient": "the patient"}
_ROLES["chronological_age"] = "the chronological age"
_UNITS: dict[AgeUnit, set[str]] = {"months": {"months", "month"}, "years": {"years", "year", "yrs"}}
# Words for the sex in a column's name, which define what 1 and true mean.
_ABOUT_SEX = re.compile(r"female|girl|(?<![a-z])(sex|gender|male|boy)")
_SEX_NAMES: dict[SexName, re.Pattern[str]] = {
    "female": re.compile(r"female|girl|wom[ae]n|weib|femme|fem[ei]n|fille|mujer|(?<![a-z])[fw](?![a-z])"),
    "male": re.compile(r"(?<!fe)male|boy|(?<![a-z])m(?![a-z])"),
}
_CODED = re.compile(r"[=:]|(?<![a-z])(no|not|non)(?![a-z])")  # the name contains a code or a negation


class NotALabelTableError(BoneAgeError):
    """The file is not a table, or lacks a required column."""


def find_columns(header: Sequence[str], spec: DatasetSpec) -> dict[str, list[str]]:
    """Return the candidate columns for each role: `id`, `bone_age`, `sex` (`male` or `female`) and so on.

    Columns named in `spec` come first, else recognized names are used.
    """
    found: dict[str, list[str]] = {}
    named = {role: " ".join(str(name).split()) for role, name in spec.columns.items() if name is not None}
    for role, aliases in ALIASES.items():
        if role in named:
            same = [name for name in header if name == named[role]]
            found[role] = same or [name for name in header if name.casefold() == named[role].casefold()]
        elif role in ("male", "female") and {"male", "female"} & set(named):
            found[role] = []
        else:
            keys = {name: split_unit(name)[0] for name in header}
            if not role.endswith("age"):
                keys = {name: re.sub(r"[\W_]", "", name.lower()) for name in header}
            found[role] = [name for name in header if keys[name] in aliases.split()]
    return found | {"sex": found["male"] + found["female"]}


def check_columns(
    path: Path, header: Sequence[str], spec: DatasetSpec, *, ages: bool
) -> dict[str, list[str]]:
    """Return `find_columns` with one column per role, except the id, which is chosen by the images.

    Args:
        path: of the table.
        header: column names.
        spec: given column names.
        ages: whether bone age and sex are required; otherwise only the id, and the sex if there is a column.

    Raises:
        NotALabelTableError: a role without a column; with the options to name it.
        BoneAgeError: a role with several columns.
    """
    found = find_columns(header, spec)
    about_sex = found["sex"] or any(_ABOUT_SEX.search(name.lower()) for name in header)
    needed = ["id", "bone_age", "sex"] if ages else ["id", "sex"] if about_sex else ["id"]
    needed += [role for role in OPTIONAL if spec.columns.get(role)]
    if missing := [role for role in needed if not found[role]]:
        raise _missing_error(path, header, missing, spec)
    for role in needed:
        names = found[role]
        if len(set(names)) < len(names):
            raise BoneAgeError(f"{path}: several columns are called {names[0]}. Remove the others.")
        if len(names) > 1 and role != "id":
            key = "male" if role == "sex" else role
            raise BoneAgeError(
                f"{path}: several columns could be {_ROLES[role]}: {', '.join(names)}. Values must be "
                f"in one column.\n{format_options(**{f'columns__{key}': '<column>'})}"
            )
    return found


def named_sexes(name: str) -> set[SexName]:
    """Return the sexes that 1 could mean by a column's name: `is_female`, `sex_F`; both for `not_male`."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    sexes = {sex for sex, pattern in _SEX_NAMES.items() if pattern.search(words)}
    return set(_SEX_NAMES) if sexes and _CODED.search(words) else sexes


def split_unit(name: str) -> tuple[str, AgeUnit | None]:
    """Split a column's name into the normalized name and the unit at its end."""
    words = re.findall(r"[^\W_]+", name.lower())
    unit = next((unit for unit, names in _UNITS.items() if words and words[-1] in names), None)
    return "".join(words[:-1] if unit else words), unit


def _missing_error(
    path: Path, header: Sequence[str], missing: list[str], spec: DatasetSpec
) -> NotALabelTableError:
    options = {f"columns__{role}": "<column>" for role in missing if role != "sex"}
    if "sex" in missing:
        about = [(name, min(sexes)) for name in header if len(sexes := named_sexes(name)) == 1]
        name, sex = about[0] if len(about) == 1 else ("<column>", "male")
        options[f"columns__{sex}"] = name
    given = [f"data.columns.{key}={name}" for key, name in spec.columns.items() if name]
    return NotALabelTableError(
        f"{path}: no column is recognized as {' or '.join(_ROLES[role] for role in missing)}"
        + (f" (given: {' '.join(given)})" if given else "")
        + f"; its columns are {', '.join(header[:12])[:300]}{' …' if len(header) > 12 else ''}.\n"
        + format_options(**options)
        + (" (or data.columns.female, if 1 means female)" if options.get("columns__male") else "")
    )
