"""Layers in float32 under mixed precision, and convolution with TensorFlow's SAME padding."""

from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

Units = Annotated[int, Ge(1)]  # validated by the constructors


class Float32Linear(nn.Linear):
    """A linear layer that always computes in float32, since bfloat16 has steps of half a month above 64."""

    def forward(self, input: Tensor) -> Tensor:
        """Map [B, F] → float32 [B, N], or float64 for such weights."""
        with torch.autocast(input.device.type, enabled=False):
            kind = torch.promote_types(self.weight.dtype, torch.float32)
            return linear(input.to(kind), self.weight.to(kind), self.bias.to(kind))


class SameConv2d(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding and dilation 1, without a padded copy of the input.

    If SAME needs one more pixel at the end, the kernel gets a leading row or column of zeros, and both sides
    are padded equally.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Convolve [B, C, H, W] → [B, N, ⌈H / stride⌉, ⌈W / stride⌉]."""
        totals = []
        for size, kernel, stride in zip(input.shape[2:], self.kernel_size, self.stride, strict=True):
            outputs = -(-size // stride)
            totals.append(max((outputs - 1) * stride + kernel - size, 0))
        rows, columns = (total % 2 for total in totals)
        weight = self.weight
        if rows:
            weight = torch.cat([torch.zeros_like(weight[:, :, :1]), weight], dim=2)
        if columns:
            weight = torch.cat([torch.zeros_like(weight[:, :, :, :1]), weight], dim=3)
        padding = [(total + 1) // 2 for total in totals]
        return conv2d(input, weight, self.bias, self.stride, padding, groups=self.groups)


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise convolution that is trained in float32 on CPUs, where its bfloat16 gradient is slow."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolve [B, C, H, W] → [B, C, H', W'] of the input's type."""
        kind = input.device.type
        if kind != "cpu" or not torch.is_grad_enabled() or not torch.is_autocast_enabled(kind):
            return super().forward(input)
        with torch.autocast(kind, enabled=False):
            return super().forward(input.to(self.weight.dtype)).to(input.dtype)


class DepthwiseSameConv2d(DepthwiseConv2d, SameConv2d):
    """The same with TensorFlow's SAME padding."""
