"""Draw the training and validation rows: groups, protocols and folds.

- `published`: what the author ran. Every group's rows are drawn with replacement, also where it has
  thousands, and then divided by age bin alone, as scikit-learn's stratified `train_test_split` does. An
  image can be on both sides: on the whole RSNA table 54 % of the validation rows show one that is trained on.
- `disjoint`, the default: each group's images are divided first, and repeated within a side only where the
  group is too small.
- `natural`: as `disjoint`, but each held-out image validates once, at the table's own ages and sexes. An
  image that is alone in its group is trained on.

`disjoint` and `natural` keep all images of a patient, and one image under two ids, on one side.
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
    """Draw `samples_per_group` rows from each of the 2 × `age_bins` groups and divide them in two.

    Of a table of one sex there are the `age_bins` groups of that sex.

    Args:
        table: columns `id` (str, unique), `bone_age` (months), `male` (bool) and, where known, `patient`; its
            row order does not matter.
        protocol: `disjoint`, `natural` or `published`, see the module's text.
        age_bins: number of equal-width age bins.
        samples_per_group: rows of each group in the result.
        val_fraction: part of each group's rows that validates, between 0 and 1; of `published` part of
            each age bin's, whatever their sex.
        fold: which part: with one seed, of 1 to 1 / `val_fraction`, no two have an image in common, and
            where that is a whole number, all together have every image of groups with at least two; not of
            `published`.
        seed: with the table, all that the result depends on.
        pixel_sha256: digest of each id's pixels; `None` where every id has an image of its own.
        sampler: how many of the training rows each group has; not of `published`. If they are
            redrawn each epoch, see `draws_each_epoch`, the split has each training image once.
        training_images: ids of images that are not to validate, nor others of their patients or that show
            the same; not of `published`.

    Returns:
        `id, bone_age, male, group, subset`, subset being `train` or `validation`; for each group exactly
        `round(samples_per_group × val_fraction)` validation rows (of `published` on average; of `natural`
        that share of its images), and on average the rest training rows.

    Raises:
        BoneAgeError: an unknown protocol, sizes that leave a side empty, a group with fewer than two images
            (but of `natural`); the message has the options that work with this table.
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

    there = sorted(groups.unique())
    generators = {group: np.random.default_rng([seed, group]) for group in there}
    held_out, kept = [], []
    for group, rng in generators.items():  # a patient of several ages is divided with the first row's
        first = rng.permutation(np.flatnonzero((units == units.index) & (groups == group)))
        first = first[np.argsort(taken[first], kind="stable")]  # what may validate first
        validates, trains = _split_group(first, val_fraction, fold, free=int((~taken[first]).sum()))
        held_out.append(validates)
        kept.append(trains)
    validation, train = (
        {group: rows[groups[rows] == group] for group in there}
        for rows in (_rows_of(np.concatenate(part), units.to_numpy()) for part in (held_out, kept))
    )
    if protocol == "disjoint":
        for group, rng in generators.items():
            if not len(validation[group]):
                few = f"are too few for data.fold={fold}: data.val_fraction={val_fraction:g} gives it none"
                seen = f"were trained on by the checkpoint: none of them can be in data.fold={fold}"
                raise _side_error(group, edges, seen if taken[groups == group].all() else few)
            if not len(train[group]):
                raise _side_error(group, edges, f"are all of patients that validate in data.fold={fold}")
            validation[group] = _sample_rows(validation[group], n_validation, rng)
    if not any(map(len, validation.values())):
        if taken.any():
            raise BoneAgeError("All images were trained on by the checkpoint: none can validate. Add others.")
        least = "two images" if fold == 1 else f"enough images for data.fold={fold}"
        raise BoneAgeError(
            f"data.split_protocol=natural: no group by sex and age has {least}, of {len(table)} in all: "
            "none can validate.\nWith fewer, wider groups some may: data.age_bins=1"
        )
    if not draws_each_epoch(protocol, sampler):
        for group, rng in generators.items():
            train[group] = _sample_rows(train[group], samples_per_group - n_validation, rng)
    parts = [
        table.loc[rows].assign(group=group, subset=subset)
        for group in there
        for subset, rows in (("train", train[group]), ("validation", validation[group]))
    ]
    return _to_split(pd.concat(parts))


def link_images(table: pd.DataFrame, pixel_sha256: Mapping[str, str] | None) -> pd.Series:
    """Return the position of the first row that each is linked to by patient or image, also through others.

    Args:
        table: `id` and, where known, `patient`; its index counts from 0.
        pixel_sha256: digest of each id's pixels; `None` where every id has an image of its own.
    """
    rows = np.arange(len(table))
    linked = pd.factorize(table["id"].map(pixel_sha256) if pixel_sha256 else table["id"])[0]
    if "patient" in table:
        patient = pd.factorize(table["patient"])[0] + linked.max() + 1  # the one below: not known
        known = patient > linked.max()
        links = np.concatenate([linked, patient[known]]) + len(rows)  # nodes behind those of the rows
        edges = np.ones(len(links)), (np.concatenate([rows, rows[known]]), links)
        linked = connected_components(coo_array(edges, (links.max() + 1,) * 2))[1][: len(rows)]
    return pd.Series(rows).groupby(linked).transform("min")


def _rows_of(first: np.ndarray, units: np.ndarray) -> np.ndarray:
    """Return all rows of the units that begin with these rows, in their order."""
    place = np.full(len(units), -1)
    place[first] = np.arange(len(first))
    rows = np.flatnonzero(place[units] >= 0)
    return rows[np.argsort(place[units[rows]], kind="stable")]


def _side_error(group: int, edges: list[float], why: str) -> BoneAgeError:
    return BoneAgeError(
        f"The images of {group_name(group, edges)} {why}.\n"
        "With data.split_protocol=natural that group does without."
    )


def draws_each_epoch(protocol: str, sampler: Sampling) -> bool:
    """Whether training rows are redrawn each epoch: the split has each training image once."""
    return protocol == "natural" or (protocol == "disjoint" and unwrap(sampler) is not balanced)


def count_draws(
    split: pd.DataFrame, sampler: Sampling, samples_per_group: int, val_fraction: float
) -> dict[int, int]:
    """Return how many training rows of each group an epoch draws; nothing where that is each image once.

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
    """Raise `BoneAgeError` for what a split with images on both sides cannot have."""
    if unwrap(sampling) is not balanced:
        raise BoneAgeError(
            "data.split_protocol=published draws equally from every group: use sampler=balanced."
        )
    if fold > 1:
        raise BoneAgeError("data.split_protocol=published puts images on both sides: it has no folds.")
    if trained:
        raise BoneAgeError(
            "data.split_protocol=published puts images on both sides: no data.split_from=new_keep_train."
        )


def _published_split(table: pd.DataFrame, bins: int, samples: int, share: float, seed: int) -> pd.DataFrame:
    """Draw `samples` rows of each group with replacement; then validate with `share` of each age bin's."""
    rng = np.random.default_rng(seed)
    rows = table.groupby("group").sample(samples, replace=True, random_state=rng).reset_index(drop=True)
    validation = rows.groupby(rows["group"] % bins).sample(frac=share, random_state=rng).index
    return rows.assign(subset=np.where(rows.index.isin(validation), "validation", "train"))


def _split_group(first: np.ndarray, share: float, fold: int, free: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which of a group's units validate and which train; the first `free` of them may validate."""
    count = len(first)
    start, end = (round(count * share * at) for at in (fold - 1, fold))
    if count * share < 1:  # of these few, one each in the first folds
        start, end = (min(at, count) for at in (fold - 1, fold))
    first = np.concatenate([np.roll(first[:free], -start), first[free:]])
    held_out = max(min(end - start, count - 1, free), 0)
    return first[:held_out], first[held_out:]


def check_fold(fold: int, share: float) -> None:
    """Raise `BoneAgeError` for a fold that a share of the images for validation has not."""
    folds = int(1 / share + 1e-9)
    if not 1 <= fold <= folds:
        more = f"\nFor more of them: data.val_fraction={floor(1e4 / fold) / 1e4:g}" if fold > 1 else ""
        raise BoneAgeError(
            f"data.fold={fold}: data.val_fraction={share:g} makes {folds} folds, 1 to {folds}.{more}"
        )


def _sample_rows(images: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draw `count` images: each of them as often as the others, give or take one."""
    whole, rest = divmod(count, len(images))
    return np.concatenate([np.tile(images, whole), rng.permutation(images)[:rest]])


def _validation_rows(protocol: str, age_bins: int, samples_per_group: int, val_fraction: float) -> int:
    if protocol not in get_args(Protocol):
        raise BoneAgeError(f"data.split_protocol={protocol}: there are {', '.join(get_args(Protocol))}.")
    if age_bins < 1:
        raise BoneAgeError(f"data.age_bins={age_bins}: at least 1 is needed.")
    rows = round(samples_per_group * val_fraction)
    if not 0 < rows < samples_per_group:
        raise BoneAgeError(
            f"data.samples_per_group={samples_per_group} and data.val_fraction={val_fraction} leave "
            f"{samples_per_group - rows} training and {rows} validation samples a group;\n"
            "each side needs at least one."
        )
    return rows
