"""What travels from the data to the model."""

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict):
    """One batch: images and their sex, bone age and row in their side of the split."""

    image: Tensor  # float32 [B, 3, H, W], ImageNet-normalised
    male: Tensor  # float32 [B], 1 or 0
    bone_age: Tensor  # float32 [B], months
    row: Tensor  # int64 [B]
