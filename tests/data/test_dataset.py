from itertools import chain

import numpy as np
import pandas as pd
import pytest

from boneage_pl.data.dataset import EpochBatchSampler, RadiographDataset, check_shares
from boneage_pl.data.transforms.compose import hashed_uniform
from boneage_pl.errors import BoneAgeError


def epoch(length: int, size: int, **options: int) -> list[list[int]]:
    batches = EpochBatchSampler(length, size, 5, **options)
    batches.set_epoch(2)
    assert len(batches) == len(list(batches))
    return [[row for row, _ in batch] for batch in batches]


def joined(batches: list[list[int]]) -> list[int]:
    return list(chain(*batches))


def test_epoch_has_every_row_once():
    batches = epoch(80, 32)
    assert [len(batch) for batch in batches] == [32, 32, 16]
    assert sorted(joined(batches)) == list(range(80))


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_share_batches_of_one(processes: int):
    whole = epoch(80, 32)
    shares = [epoch(80, 32, processes=processes, process=p) for p in range(processes)]
    for batch, *parts in zip(whole, *shares, strict=True):
        assert sorted(joined(parts)) == sorted(batch)
        assert {len(part) for part in parts} == {len(batch) // processes}


def test_micro_batches_make_up_one_batch():
    parts = epoch(80, 32, parts=4)
    assert [len(part) for part in parts] == [8] * 8 + [4] * 4
    assert [joined(parts[k : k + 4]) for k in (0, 4, 8)] == epoch(80, 32)


def test_validation_rows_are_never_repeated():
    shares = [EpochBatchSampler(33, 32, None, processes=2, process=p) for p in range(2)]
    rows = [row for share in shares for batch in share for row, _ in batch]
    assert sorted(rows) == list(range(33))
    assert [len(share) for share in shares] == [2, 1]


@pytest.mark.parametrize("length", [64, 70, 79, 80, 95])
@pytest.mark.parametrize(("processes", "parts"), [(1, 1), (2, 1), (2, 2), (1, 8)])
def test_training_shares_are_equal_for_any_length(length: int, processes: int, parts: int):
    shares = [epoch(length, 32, processes=processes, process=p, parts=parts) for p in range(processes)]
    sizes = [[len(batch) for batch in share] for share in shares]
    assert all(one == sizes[0] for one in sizes)
    assert all(len(set(sizes[0][k : k + parts])) == 1 for k in range(0, len(sizes[0]), parts))
    rows = joined([row for share in shares for row in share])
    rest = length % 32  # a last batch that is less than half full is dropped
    assert len(rows) == len(set(rows)) == length - (rest if rest < 16 else rest % (processes * parts))


def test_unequal_batches_are_refused():
    check_shares(6001, 32, processes=8, parts=4)
    with pytest.raises(
        BoneAgeError, match=r"data\.batch_size=32: not divisible by 3 processes.*\n.*: 1, 2, 4, 8, 16, 32\."
    ):
        check_shares(6000, 32, processes=3, parts=1)
    check_shares(16, 32, processes=4, parts=1)
    with pytest.raises(BoneAgeError, match="15 training rows are too few"):
        check_shares(15, 32, processes=4, parts=1)


def test_validation_keys_differ_by_row_and_epoch():
    """Random transforms in validation change a share of the images, not all of them."""
    rows = pd.DataFrame({"id": [str(n) for n in range(400)], "male": 1, "bone_age": 100.0})
    side = RadiographDataset(rows, lambda ids: np.zeros((len(ids), 4, 4), np.uint8), train=False, seed=3)
    keys = [side[[(row, epoch) for row in range(400)]]["key"] for epoch in range(2)]
    first = [hashed_uniform(key, 1)[:, 0] for key in keys]
    assert all(0.05 < (numbers < 0.1).float().mean() < 0.15 for numbers in first)
    assert (first[0] != first[1]).all()
