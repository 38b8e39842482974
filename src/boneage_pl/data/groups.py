"""Groups by sex and age, and checks of their sizes."""

import numpy as np
import pandas as pd

from boneage_pl.data.tables.validate import format_list
from boneage_pl.errors import BoneAgeError


def age_edges(ages: pd.Series, bins: int) -> list[float]:
    """Return the `bins + 1` edges in months of equal-width age bins from the youngest to the oldest."""
    return [float(edge) for edge in np.linspace(ages.min(), ages.max(), bins + 1)]


def assign_groups(table: pd.DataFrame, edges: list[float]) -> pd.Series:
    """Return the group of each row: the age bin for girls, `bins` + age bin for boys.

    A bin includes its upper edge, the first one also its lower edge, as in `pandas.cut`.
    """
    bins = len(edges) - 1
    age_bin = np.clip(np.searchsorted(edges, table["bone_age"], side="left") - 1, 0, bins - 1)
    return pd.Series(age_bin + bins * table["male"].to_numpy(dtype=int), index=table.index, name="group")


def group_name(group: int, edges: list[float]) -> str:
    """Return the name of a group, e.g. "boys of 23.7 to 46.4 months"."""
    sex, age_bin = divmod(group, len(edges) - 1)
    return f"{('girls', 'boys')[sex]} of {edges[age_bin]:.1f} to {edges[age_bin + 1]:.1f} months"


def check_group_sizes(
    table: pd.DataFrame, units: pd.Series, edges: list[float], samples: int, share: float
) -> None:
    """Reject a table with a group of fewer than two images, with options that work.

    Args:
        table: `bone_age`, `male`.
        units: linked images, see `link_images`.
        edges: edges of the age bins, months.
        samples: rows per group.
        share: fraction for validation.
    """
    bins = len(edges) - 1
    counts = _images_per_group(table, units, edges)
    few = {count: [group for group, n in counts.items() if n == count] for count in (0, 1)}
    if not few[0] and not few[1]:
        return
    works = suggest_split_options(table, units, bins, samples, share)
    ages = table["bone_age"]
    if ages.min() == ages.max():
        raise BoneAgeError(f"All bone ages are {ages.min():g} months, a single age bin.\n{works}")
    problems = [
        f"{len(groups)} have {'no' if count == 0 else 'a single'} image: "
        + format_list((group_name(g, edges) for g in groups), 5)
        for count, groups in few.items()
        if groups
    ]
    raise BoneAgeError(
        f"Of the {len(counts)} groups by sex and age, which need at least two images, "
        f"{'; '.join(problems)}.\n{works}"
    )


def _images_per_group(table: pd.DataFrame, units: pd.Series, edges: list[float]) -> dict[int, int]:
    """Return the number of independent images per group, for the sexes in the table."""
    counts = units.groupby(assign_groups(table, edges)).nunique()
    bins = len(edges) - 1
    return {
        bins * sex + age_bin: int(counts.get(bins * sex + age_bin, 0))
        for sex in sorted(table["male"].astype(int).unique())
        for age_bin in range(bins)
    }


def suggest_split_options(
    table: pd.DataFrame, units: pd.Series, bins: int, samples: int, share: float
) -> str:
    """Suggest options that make every group large enough: fewer age bins or rows."""
    for fewer in range(bins - 1, 0, -1):
        counts = _images_per_group(table, units, age_edges(table["bone_age"], fewer))
        if min(counts.values()) > 1:
            each = max(-(-len(table) // len(counts)), 2)  # about every image once
            each = next((n for n in range(each, samples) if 0 < round(n * share) < n), samples)
            return f"Options for this table: data.age_bins={fewer} data.samples_per_group={each}"
    sex = table["male"].astype(bool)
    few = [name for name, mask in (("girl", ~sex), ("boy", sex)) if units[mask].nunique() == 1]
    return (
        f"No number of age bins works: a single {' and a single '.join(few)}; each sex needs two.\n"
        "Add images, or remove the rows of that sex: a table of one sex is supported."
    )


def missing_sex_note(table: pd.DataFrame) -> str:
    """Return a note if a sex is missing in a table; empty otherwise."""
    sexes = table["male"].astype(bool)
    if sexes.nunique() != 1:
        return ""
    missing, present = ("girls", "boys") if sexes.iloc[0] else ("boys", "girls")
    return f"no {missing} in the table: the groups are of {present} only"
