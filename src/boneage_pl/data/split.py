"""The published sampling: groups by sex and bone age, an equal draw from each, three to one.

Several of the real table's twenty groups hold far fewer than 400 images, so drawing 400 must repeat some.
`disjoint` divides each group's images first and repeats within a side; `published` repeats first and
divides after, which puts the same image on both sides.
"""

from typing import Literal

import numpy as np
import pandas as pd

from boneage_pl.errors import BoneageError

Protocol = Literal["disjoint", "published"]
COLUMNS = ["id", "bone_age", "male", "group", "subset"]


def age_edges(ages: pd.Series, bins: int) -> list[float]:
    """Return the `bins + 1` edges in months of equal-width age bins from the youngest to the oldest."""
    return [float(edge) for edge in np.linspace(ages.min(), ages.max(), bins + 1)]


def assign_groups(table: pd.DataFrame, edges: list[float]) -> pd.Series:
    """Return each row's group: its age bin for girls, `bins` + its age bin for boys.

    A bin holds its upper edge; the first one holds its lower edge too, as `pandas.cut` does.
    """
    bins = len(edges) - 1
    age_bin = np.clip(np.searchsorted(edges, table["bone_age"], side="left") - 1, 0, bins - 1)
    return pd.Series(age_bin + bins * table["male"].to_numpy(dtype=int), index=table.index, name="group")


def group_name(group: int, edges: list[float]) -> str:
    """Say a group in words, e.g. "boys of 23.7 to 46.4 months"."""
    sex, age_bin = divmod(group, len(edges) - 1)
    return f"{('girls', 'boys')[sex]} of {edges[age_bin]:.1f} to {edges[age_bin + 1]:.1f} months"


def make_split(
    table: pd.DataFrame,
    *,
    protocol: Protocol = "disjoint",
    age_bins: int = 10,
    samples_per_group: int = 400,
    validation_share: float = 0.25,
    seed: int = 0,
) -> pd.DataFrame:
    """Draw `samples_per_group` rows from each of the 2 × `age_bins` groups and divide them in two.

    Args:
        table: columns `id` (str, unique), `bone_age` (months), `male` (bool); its row order does not matter.
        protocol: `disjoint` or `published`, see the module's text.
        age_bins: number of equal-width age bins.
        samples_per_group: rows of each group in the result, repeated where the group is smaller.
        validation_share: part of each group's rows that validates, between 0 and 1.
        seed: with the table, all that the result depends on.

    Returns:
        `id, bone_age, male, group, subset`, subset being `train` or `validation`; for each group exactly
        `round(samples_per_group × validation_share)` validation rows, the rest training rows.

    Raises:
        BoneageError: an unknown protocol, sizes that leave a side empty, a group with fewer than two images.
    """
    n_validation = _validation_rows(protocol, age_bins, samples_per_group, validation_share)
    table = table.sort_values("id", kind="stable").reset_index(drop=True)
    edges = age_edges(table["bone_age"], age_bins)
    groups = assign_groups(table, edges)
    _check_groups(groups, edges)

    parts = []
    for group in range(2 * age_bins):
        rng = np.random.default_rng([seed, group])
        images = rng.permutation(np.flatnonzero(groups == group))
        if protocol == "disjoint":
            held_out = min(max(round(len(images) * validation_share), 1), len(images) - 1)
            validation = _draw(images[:held_out], n_validation, rng)
            train = _draw(images[held_out:], samples_per_group - n_validation, rng)
        else:
            drawn = rng.permutation(_draw(images, samples_per_group, rng))
            validation, train = drawn[:n_validation], drawn[n_validation:]
        for subset, rows in (("train", train), ("validation", validation)):
            parts.append(table.loc[rows].assign(group=group, subset=subset))
    return pd.concat(parts)[COLUMNS].sort_values("subset", kind="stable").reset_index(drop=True)


def _draw(images: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` images: each of them as often as the others, give or take one."""
    whole, rest = divmod(count, len(images))
    return np.concatenate([np.tile(images, whole), rng.permutation(images)[:rest]])


def _validation_rows(protocol: str, age_bins: int, samples_per_group: int, validation_share: float) -> int:
    if protocol not in ("disjoint", "published"):
        raise BoneageError(f"data.protocol={protocol}: there are two, disjoint and published.")
    if age_bins < 1:
        raise BoneageError(f"data.age_bins={age_bins}: at least 1 is needed.")
    rows = round(samples_per_group * validation_share)
    if not 0 < rows < samples_per_group:
        raise BoneageError(
            f"data.samples_per_group={samples_per_group} and data.validation_share={validation_share} leave "
            f"{samples_per_group - rows} training and {rows} validation samples a group;\n"
            "each side needs at least one."
        )
    return rows


def _check_groups(groups: pd.Series, edges: list[float]) -> None:
    bins = len(edges) - 1
    counts = np.bincount(groups, minlength=2 * bins)
    empty = [group_name(int(g), edges) for g in np.flatnonzero(counts == 0)]
    single = [group_name(int(g), edges) for g in np.flatnonzero(counts == 1)]
    fewer = "Use fewer, wider age bins (data.age_bins=" + str(max(bins // 2, 1)) + ", say) or a larger table."
    if empty:
        raise BoneageError(
            f"{len(empty)} of the {2 * bins} groups by sex and age hold no image: {_listed(empty)}.\n{fewer}"
        )
    if single:
        raise BoneageError(
            f"{len(single)} of the {2 * bins} groups hold a single image, and a split needs two: "
            f"{_listed(single)}.\n{fewer}"
        )


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
