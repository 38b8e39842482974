"""Draw the training and validation rows: groups, protocols and folds.

- `published`: as the author ran it. Rows of each group are drawn with replacement and then split by age bin,
  as in scikit-learn's stratified `train_test_split`. Images can be in both subsets: on the whole RSNA table,
  54 % of the validation rows show training images.
- `disjoint` (default): the images of each group are split first, and repeated within a subset only if the
  group is too small.
- `natural`: as `disjoint`, but each held-out image is used once, at the table's ages and sexes. The only
  image of a group is a training image.

`disjoint` and `natural` keep all images of a patient, and copies of an image, in one subset.
"""

from collections.abc import Collection, Mapping
from inspect import unwrap
from math import floor
from typing import Literal, get_args

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from boneage_pl.data.groups import age_edges, assign_groups, check_group_sizes, group_name
from boneage_pl.data.sampling import Sampling, balanced, rows_per_group
from boneage_pl.errors import BoneAgeError

Protocol = Literal["disjoint", "natural", "published"]
BALANCED = ("disjoint", "published")  # equal numbers of rows from every group
COLUMNS = ["id", "bone_age", "male", "group", "subset"]


def make_split(
    table: pd.DataFrame,
    *,
    protocol: Protocol = "disjoint",
    age_bins: int = 10,
    samples_per_group: int = 400,
    val_fraction: float = 0.25,
    fold: int = 1,
    seed: int = 0,
    pixel_sha256: Mapping[str, str] | None = None,
    sampler: Sampling = balanced,
    training_images: Collection[str] = (),
) -> pd.DataFrame:
    """Draw `samples_per_group` rows from each of the 2 × `age_bins` groups and split them.

    A table of one sex has `age_bins` groups.

    Args:
        table: columns `id` (str, unique), `bone_age` (months), `male` (bool), optionally `patient`; in any
            order.
        protocol: `disjoint`, `natural` or `published`, see the module docstring.
        age_bins: number of equal-width age bins.
        samples_per_group: rows per group.
        val_fraction: fraction of each group for validation, between 0 and 1; for `published` of each age bin.
        fold: number of the fold, from 1 to 1 / `val_fraction`. Folds of one seed are disjoint, and if their
            number is whole, cover all images of groups with at least two. Not for `published`.
        seed: of the random numbers; the result depends only on it and the table.
        pixel_sha256: pixel hash by id; `None` if all images differ.
        sampler: number of training rows per group; not for `published`. If rows are redrawn each epoch, see
            `draws_each_epoch`, the split has each training image once.
        training_images: ids of images that must not validate, like their copies and others of their patients;
            not for `published`.

    Returns:
        `id, bone_age, male, group, subset`, subset being `train` or `validation`; each group has
        `round(samples_per_group × val_fraction)` validation rows (`published`: on average; `natural`: that
        fraction of its images); the rest are training rows (on average).

    Raises:
        BoneAgeError: unknown protocol, empty subset, or a group with fewer than two images (except
            `natural`); with options that work for this table.
    """
    n_validation = _validation_rows(protocol, age_bins, samples_per_group, val_fraction)
    check_fold(fold, val_fraction)
    if protocol == "published":
        _check_published(sampler, fold, training_images)
    table = table.sort_values("id", kind="stable").reset_index(drop=True)
    edges = age_edges(table["bone_age"], age_bins)
    groups = assign_groups(table, edges)
    units = link_images(table, pixel_sha256)
    if protocol in BALANCED:
        check_group_sizes(table, units, edges, samples_per_group, val_fraction)
    if protocol == "published":
        share = n_validation / samples_per_group
        return _to_split(
            _published_split(table.assign(group=groups), age_bins, samples_per_group, share, seed)
        )
    taken = units.isin(set(units[table["id"].isin(set(training_images))])).to_numpy()

    group_ids = sorted(groups.unique())
    generators = {group: np.random.default_rng([seed, group]) for group in group_ids}
    held_out, kept = [], []
    for group, rng in generators.items():  # a patient of several ages is in the group of the first row
        first = rng.permutation(np.flatnonzero((units == units.index) & (groups == group)))
        first = first[np.argsort(taken[first], kind="stable")]  # units that may validate come first
        validates, trains = _split_group(first, val_fraction, fold, free=int((~taken[first]).sum()))
        held_out.append(validates)
        kept.append(trains)
    validation, train = (
        {group: rows[groups[rows] == group] for group in group_ids}
        for rows in (_rows_of(np.concatenate(part), units.to_numpy()) for part in (held_out, kept))
    )
    if protocol == "disjoint":
        for group, rng in generators.items():
            if not len(validation[group]):
                few = f"are too few for data.fold={fold} with data.val_fraction={val_fraction:g}"
                seen = f"are all training images of the checkpoint, so none can be in data.fold={fold}"
                raise _side_error(group, edges, seen if taken[groups == group].all() else few)
            if not len(train[group]):
                raise _side_error(group, edges, f"are all of validation patients in data.fold={fold}")
            validation[group] = _sample_rows(validation[group], n_validation, rng)
    if not any(map(len, validation.values())):
        if taken.any():
            raise BoneAgeError(
                "All images are training images of the checkpoint, so none can validate. Add others."
            )
        required = "two images" if fold == 1 else f"enough images for data.fold={fold}"
        raise BoneAgeError(
            f"data.split_protocol=natural: no group by sex and age of the {len(table)} images has "
            f"{required} for validation.\nUse fewer, wider groups: data.age_bins=1"
        )
    if not draws_each_epoch(protocol, sampler):
        for group, rng in generators.items():
            train[group] = _sample_rows(train[group], samples_per_group - n_validation, rng)
    parts = [
        table.loc[rows].assign(group=group, subset=subset)
        for group in group_ids
        for subset, rows in (("train", train[group]), ("validation", validation[group]))
    ]
    return _to_split(pd.concat(parts))


def link_images(table: pd.DataFrame, pixel_sha256: Mapping[str, str] | None) -> pd.Series:
    """Return the first row that each row is linked to (transitively) by patient or pixels.

    Args:
        table: `id`, optionally `patient`; index from 0.
        pixel_sha256: pixel hash by id; `None` if all images differ.
    """
    rows = np.arange(len(table))
    linked = pd.factorize(table["id"].map(pixel_sha256) if pixel_sha256 else table["id"])[0]
    if "patient" in table:
        patient = pd.factorize(table["patient"])[0] + linked.max() + 1  # missing patients are one below
        known = patient > linked.max()
        links = np.concatenate([linked, patient[known]]) + len(rows)  # nodes after those of the rows
        edges = np.ones(len(links)), (np.concatenate([rows, rows[known]]), links)
        linked = connected_components(coo_array(edges, (links.max() + 1,) * 2))[1][: len(rows)]
    return pd.Series(rows).groupby(linked).transform("min")


def _rows_of(first: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return all rows of the units with these first rows, in their order."""
    place = np.full(len(units), -1)
    place[first] = np.arange(len(first))
    rows = np.flatnonzero(place[units] >= 0)
    return rows[np.argsort(place[units[rows]], kind="stable")]


def _side_error(group: int, edges: list[float], why: str) -> BoneAgeError:
    return BoneAgeError(
        f"The images of {group_name(group, edges)} {why}.\n"
        "data.split_protocol=natural allows groups without validation images."
    )


def draws_each_epoch(protocol: str, sampler: Sampling) -> bool:
    """Whether training rows are redrawn each epoch, so that the split has each training image once."""
    return protocol == "natural" or (protocol == "disjoint" and unwrap(sampler) is not balanced)


def count_draws(
    split: pd.DataFrame, sampler: Sampling, samples_per_group: int, val_fraction: float
) -> dict[int, int]:
    """Return the number of training rows per group and epoch; empty if that is each image once.

    Args:
        split: with each training image once.
        sampler, samples_per_group, val_fraction: see `make_split`.

    Raises:
        BoneAgeError: see `rows_per_group`.
    """
    images = split.loc[split["subset"] == "train", "group"].value_counts().sort_index()
    rows = samples_per_group - round(samples_per_group * val_fraction)
    counts = rows_per_group(sampler, images.to_numpy().astype(np.int64), len(images) * rows)
    drawn = dict(zip(images.index.tolist(), counts.tolist(), strict=True))
    return {} if drawn == images.to_dict() else drawn


def _to_split(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[COLUMNS].sort_values("subset", kind="stable").reset_index(drop=True)


def _check_published(sampling: Sampling, fold: int, trained: Collection[str]) -> None:
    """Raise `BoneAgeError` for options that the protocol `published` does not support."""
    if unwrap(sampling) is not balanced:
        raise BoneAgeError(
            "data.split_protocol=published draws equally from every group: use sampler=balanced."
        )
    if fold > 1:
        raise BoneAgeError("data.split_protocol=published has no folds, since its subsets overlap.")
    if trained:
        raise BoneAgeError(
            "data.split_protocol=published does not support split_from=new_keep_train: its subsets overlap."
        )


def _published_split(table: pd.DataFrame, bins: int, samples: int, share: float, seed: int) -> pd.DataFrame:
    """Draw `samples` rows per group with replacement, then split `share` of each age bin for validation."""
    rng = np.random.default_rng(seed)
    rows = table.groupby("group").sample(samples, replace=True, random_state=rng).reset_index(drop=True)
    validation = rows.groupby(rows["group"] % bins).sample(frac=share, random_state=rng).index
    return rows.assign(subset=np.where(rows.index.isin(validation), "validation", "train"))


def _split_group(first: np.ndarray, share: float, fold: int, free: int) -> tuple[np.ndarray, np.ndarray]:
    """Split a group's units into validation and training; only the first `free` may validate."""
    count = len(first)
    start, end = (round(count * share * at) for at in (fold - 1, fold))
    if count * share < 1:  # too few: one each in the first folds
        start, end = (min(at, count) for at in (fold - 1, fold))
    first = np.concatenate([np.roll(first[:free], -start), first[free:]])
    held_out = max(min(end - start, count - 1, free), 0)
    return first[:held_out], first[held_out:]


def check_fold(fold: int, share: float) -> None:
    """Raise `BoneAgeError` for a fold that does not exist for a validation fraction."""
    folds = int(1 / share + 1e-9)
    if not 1 <= fold <= folds:
        more = f"\nFor more folds: data.val_fraction={floor(1e4 / fold) / 1e4:g}" if fold > 1 else ""
        raise BoneAgeError(f"data.fold={fold}: data.val_fraction={share:g} gives folds 1 to {folds}.{more}")


def _sample_rows(images: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` images, each equally often up to one."""
    whole, rest = divmod(count, len(images))
    return np.concatenate([np.tile(images, whole), rng.permutation(images)[:rest]])


def _validation_rows(protocol: str, age_bins: int, samples_per_group: int, val_fraction: float) -> int:
    if protocol not in get_args(Protocol):
        raise BoneAgeError(f"data.split_protocol={protocol}: choose from {', '.join(get_args(Protocol))}.")
    if age_bins < 1:
        raise BoneAgeError(f"data.age_bins={age_bins}: it must be at least 1.")
    rows = round(samples_per_group * val_fraction)
    if not 0 < rows < samples_per_group:
        raise BoneAgeError(
            f"data.samples_per_group={samples_per_group} and data.val_fraction={val_fraction} leave "
            f"{samples_per_group - rows} training and {rows} validation samples per group;\n"
            "each subset needs at least one."
        )
    return rows
