"""What travels from the data to the model."""

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict):
    """One batch: images with their sex, bone age and row in their side of the split."""

    image: Tensor  # uint8 [B, 1, H, W] from the loader; as the network sees it on the device, [B, C, H, W]
    key: Tensor  # int64 [B], of (seed, epoch, row), that transforms draw from; 0 to validate
    male: Tensor  # float32 [B], 1 or 0
    bone_age: Tensor  # float32 [B], months
    row: Tensor  # int64 [B]
