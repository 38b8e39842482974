"""From a file on disk to the tensor the network sees."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.transforms import v2

from boneage_pl.errors import BoneageError

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # published; torchvision's values for ImageNet
IMAGENET_STD = (0.229, 0.224, 0.225)


def read_image(path: Path | str) -> Image.Image:
    """Read a PNG or JPEG as a person would see it: mode `L` if it is gray, else `RGB`, 8 bits a channel.

    16-bit values keep their high byte (the format's full range, not the data's), transparency lies on black
    as a radiograph's background does, palettes are looked up and EXIF orientation is applied.

    Raises:
        BoneageError: the file cannot be read as an image.
    """
    try:
        with Image.open(path) as file:
            file.load()
            return _eight_bit(ImageOps.exif_transpose(file))
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise BoneageError(f"{path} cannot be read as an image: {error}") from error


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):  # 16-bit gray; Pillow's own conversion would clip at 255
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, (0, 0, 0, 255)), seen).convert("RGB")
    return image if image.mode == "L" else image.convert("L" if image.mode == "1" else "RGB")


def published_transform(size: int, *, train: bool) -> v2.Compose:
    """Return the published preprocessing: a PIL image → float32 [3, `size`, `size`], ImageNet-normalised.

    Validation is the same without the flip. `v2.RGB` only repeats a gray image's channel: Pillow resizes each
    channel alone, so doing it after the resize gives the same tensor for a third of the work.
    """
    return v2.Compose(
        [
            *([v2.RandomHorizontalFlip(0.5)] if train else []),
            v2.Resize(size),
            v2.CenterCrop(size),
            v2.ToImage(),
            v2.RGB(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean=list(IMAGENET_MEAN), std=list(IMAGENET_STD)),
        ]
    )


def unnormalise(images: torch.Tensor) -> torch.Tensor:
    """Undo the ImageNet normalisation, for looking: [..., 3, H, W] → the same in [0, 1]."""
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return (images * std + mean).clamp(0, 1)


def hash_images(images: pd.DataFrame) -> dict[str, str]:
    """Return the SHA-256 of each image file's bytes by id; `images` has the columns `id` and `path`."""

    def digest(path: str) -> str:
        try:
            with Path(path).open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BoneageError(f"{path} cannot be read: {error}") from error

    with ThreadPoolExecutor() as pool:
        return dict(zip(images["id"], pool.map(digest, images["path"]), strict=True))
