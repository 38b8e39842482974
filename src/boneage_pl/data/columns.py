"""What the columns of a table mean: recognised by their names, or named by `data.columns`."""

from collections.abc import Mapping

# Names that tables give them, in lower case; the first are those of the challenge's training table.
MEANINGS = {
    "id": ("id", "image id", "case id", "image", "case"),
    "boneage": ("boneage", "bone age (months)", "ground truth bone age (months)", "bone_age", "bone age"),
    "male": ("male", "sex", "gender"),
}


def recognised(header: list[str], named: Mapping[str, str | None] | None = None) -> dict[str, str] | None:
    """Return which column of a header has which meaning, by meaning; `None` if one of the three is missing.

    Args:
        header: column names in lower case.
        named: `id`, `bone_age`, `male` → the column's name, or `None` to recognise it.
    """
    given = {("boneage" if key == "bone_age" else key): value for key, value in (named or {}).items()}
    found = {}
    for meaning, names in MEANINGS.items():
        wanted = (str(given[meaning]).strip().lower(),) if given.get(meaning) else names
        column = next((name for name in wanted if name in header), None)
        if column is None:
            return None
        found[meaning] = column
    return found


def is_training_table(header: list[str]) -> bool:
    """Whether the header has the very names of the challenge's training table."""
    return set(MEANINGS) <= set(header)
