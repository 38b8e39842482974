"""What happens to a batch on the device: flips, three channels, ImageNet's normalisation."""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # published; torchvision's values for ImageNet
IMAGENET_STD = (0.229, 0.224, 0.225)


def network_input(images: Tensor, flip: Tensor | None = None) -> Tensor:
    """Turn stored pixels into what the network sees.

    Args:
        images: uint8 [B, 1, H, W].
        flip: bool [B], the images to mirror left to right; `None` for none.

    Returns:
        float32 [B, 3, H, W] in channels-last memory, equal to the bit to torchvision's
        `ToDtype(float32, scale=True)` and `Normalize` of the image repeated to three channels.
    """
    pixels = images.squeeze(1)  # [B, 1, H, W] → [B, H, W]
    if flip is not None:
        pixels = torch.where(flip.view(-1, 1, 1), pixels.flip(2), pixels)
    # 256 gray values have 256 answers: looking them up is one pass, and lays the channels last
    return F.embedding(pixels.int(), _table(images.device)).permute(0, 3, 1, 2)  # [B, H, W, 3] → [B, 3, H, W]


@cache
def _table(device: torch.device) -> Tensor:
    """Return the normalised value of each gray value: float32 [256, 3]."""
    scaled = torch.arange(256).unsqueeze(1) * (1 / 255)  # torchvision multiplies too: to the bit
    return ((scaled - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)).to(device)


def unnormalise(images: Tensor) -> Tensor:
    """Undo the ImageNet normalisation, for looking: [..., 3, H, W] → the same in [0, 1]."""
    mean = torch.tensor(IMAGENET_MEAN).view(3, 1, 1)
    std = torch.tensor(IMAGENET_STD).view(3, 1, 1)
    return (images * std + mean).clamp(0, 1)
