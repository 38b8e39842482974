"""Ask a trained network for ages."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor

from boneage_pl.data.frame import Pixels
from boneage_pl.model.answer import Reader

MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


def predict(
    reader: Reader,
    batches: Iterable[tuple[Pixels, Iterable[bool]]],
    precision: str,
    device: str | None = None,
) -> Iterator[Tensor]:
    """Yield the answers for each batch, in months: float32 [B] on the CPU.

    Args:
        reader: what is asked; it is moved to the device and set to evaluation.
        batches: images, uint8 [B, H, W], and whether each is of a boy.
        precision: Lightning's name of what it was trained with, which is used again.
        device: `None` for a GPU where there is one.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    reader = reader.eval().to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mixed = MIXED.get(precision)
    with torch.inference_mode(), torch.autocast(place.type, mixed) if mixed else nullcontext():
        for pixels, male in batches:
            image = torch.from_numpy(pixels).to(place).unsqueeze(1)  # [B, H, W] → [B, 1, H, W]
            yield reader(image, torch.tensor(list(male), dtype=torch.float32, device=place)).cpu()
