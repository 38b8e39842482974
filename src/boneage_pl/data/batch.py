"""The batch that the data loaders yield."""

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict):
    """One batch: images with their sex, bone age and row in their side of the split."""

    # uint8 [B, 1, H, W], or int64 [B, 1] of `DeviceImages`; on the device float32 [B, C, H, W], normalized
    image: Tensor
    key: Tensor  # int64 [B], a hash of (side, seed, epoch, row) that random transforms draw from
    male: Tensor  # float32 [B], 1 or 0
    bone_age: Tensor  # float32 [B], months
    row: Tensor  # int64 [B]
