"""Input normalization of networks."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # published; torchvision's values for ImageNet
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputSpec:
    """Normalization of gray values in [0, 1], with a mean and a standard deviation for each channel.

    It is a network's attribute `input`, by default the published one, and is saved in checkpoints.
    """

    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @property
    def channels(self) -> int:
        """Number of channels C."""
        return len(self.mean)


SYMMETRIC = InputSpec(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))  # values from -1 to 1
NORMALIZATIONS = {"imagenet": InputSpec(), "inception": SYMMETRIC}  # timm's names


def get_input_spec(network: nn.Module) -> InputSpec:
    """Return a network's normalization."""
    return getattr(network, "input", InputSpec())


class Normalize(nn.Module):
    """Normalize gray images for a network, without host-to-device copies or synchronization.

    Args:
        spec: the network's normalization, of C channels.
    """

    table: Tensor  # the normalized value of each gray value, float32 [256, C]
    mean: Tensor  # float32 [C]
    std: Tensor  # float32 [C]

    def __init__(self, spec: InputSpec) -> None:
        super().__init__()
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        scaled = torch.arange(256).unsqueeze(1) * (
            1 / 255
        )  # multiplication, as in torchvision, to be bit-identical
        for name, values in (("table", (scaled - mean) / std), ("mean", mean), ("std", std)):
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalize images: uint8 [B, 1, H, W], or floating point in [0, 1] → float32 [B, C, H, W].

        The result is in channels-last memory; for uint8 it is bit-identical to torchvision's
        `ToDtype(float32, scale=True)` and `Normalize` of the image repeated to three channels.
        """
        pixels = images.squeeze(1)  # [B, 1, H, W] → [B, H, W]
        if images.is_floating_point():
            normalized = (pixels.float().unsqueeze(3) - self.mean) / self.std
        else:  # one pass over the pixels
            normalized = F.embedding(pixels.int(), self.table)
        return normalized.permute(0, 3, 1, 2)  # [B, H, W, C] → [B, C, H, W]


def denormalize(images: Tensor, spec: InputSpec) -> Tensor:
    """Undo the normalization, for display: [B, C, H, W] → gray [B, H, W] in [0, 1]."""
    return (images[:, 0] * spec.std[0] + spec.mean[0]).clamp(0, 1)
