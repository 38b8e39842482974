"""Ask a trained network for ages."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from boneage_pl.data.images import Pixels
from boneage_pl.data.transforms import network_input
from boneage_pl.machine.progress import progress


def predict_months(
    network: nn.Module,
    read: Callable[[Sequence[str]], Pixels],
    ids: Sequence[str],
    male: Sequence[bool],
    *,
    precision: str,
    device: str | None = None,
    batch_size: int = 32,
    doing: str = "predicting",
) -> NDArray[np.float64]:
    """Return the network's answer in months for each of `ids`.

    Args:
        network: of `BoneAgeNet`'s interface.
        read: ids → uint8 [B, H, W].
        male: each image's sex.
        precision: Lightning's name of what it was trained with, which is used again.
        device: `None` for a GPU where there is one.
        doing: what the progress bar says.
    """
    place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network = network.eval().to(place, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mixed = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    answers: list[torch.Tensor] = []
    starts = range(0, len(ids), batch_size)
    unflipped = torch.zeros(batch_size, dtype=torch.bool, device=place)
    with torch.inference_mode(), torch.autocast(place.type, mixed) if mixed else nullcontext():
        for start in progress(starts, len(starts), doing, "batches"):
            some = slice(start, start + batch_size)
            pixels = torch.from_numpy(read(ids[some])).to(place)  # [B, H, W]
            image = network_input(pixels.unsqueeze(1), unflipped[: len(pixels)])
            sexes = torch.tensor(np.asarray(male[some]), dtype=torch.float32, device=place)
            answers.append(network(image, sexes).squeeze(1).float().cpu())
    return torch.cat(answers).numpy().astype(np.float64)
