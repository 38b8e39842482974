"""What travels from the data to the model."""

from typing import TypedDict

from torch import Tensor


class Batch(TypedDict):
    """One batch: images with their flip, sex, bone age and row in their side of the split."""

    image: Tensor  # uint8 [B, 1, H, W] from the loader; on the device float32 [B, 3, H, W], normalised
    flip: Tensor  # bool [B], whether the device mirrors the image
    male: Tensor  # float32 [B], 1 or 0
    bone_age: Tensor  # float32 [B], months
    row: Tensor  # int64 [B]
