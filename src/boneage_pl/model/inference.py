"""Ask a trained network for ages."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor

from boneage_pl.data.frame import Pixels
from boneage_pl.model.answer import Reader

MIXED = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


class Inference:
    """A trained network, ready to be asked.

    Args:
        reader: what is asked; it is moved to the device and set to evaluation.
        precision: Lightning's name of what it was trained with, which is used again.
        device: `None` for a GPU where there is one.
    """

    def __init__(self, reader: Reader, precision: str, device: str | None = None) -> None:
        self.place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.reader = reader.eval().to(self.place, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mixed = MIXED.get(precision)

    def __call__(self, pixels: Pixels, male: Iterable[bool]) -> Tensor:
        """Return the answers for a batch, in months: float32 [B] on the CPU.

        Args:
            pixels: images, uint8 [B, H, W].
            male: whether each is of a boy.
        """
        image = torch.from_numpy(pixels).to(self.place).unsqueeze(1)  # [B, H, W] → [B, 1, H, W]
        boys = torch.tensor(list(male), dtype=torch.float32, device=self.place)
        with (
            torch.inference_mode(),
            torch.autocast(self.place.type, self.mixed) if self.mixed else nullcontext(),
        ):
            return self.reader(image, boys).cpu()


def predict(
    reader: Reader, batches: Iterable[tuple[Pixels, Iterable[bool]]], precision: str
) -> Iterator[Tensor]:
    """Yield the answers for each batch, see `Inference`."""
    ask = Inference(reader, precision)
    for pixels, male in batches:
        yield ask(pixels, male)
