"""Record the loss of each step."""

from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import Callback


class Losses(Callback):
    """Writes the exact loss of each step as a line of a file."""

    def __init__(self, path: str) -> None:
        self.path = Path(path)

    def on_train_batch_end(self, _trainer: Any, _module: Any, outputs: Any, *_: Any) -> None:
        with self.path.open("a") as file:
            file.write(f"{float(outputs['loss'])!r}\n")
