"""How checkpoints reach the disk: beside, flushed, moved into place."""

import os
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO


class WholeFiles(TorchCheckpointIO):
    """Writes checkpoints so that a file under its final name is whole.

    Straight into the file, which is four times as fast as by way of memory, as Lightning does it. The best
    checkpoint is often the last one too: its second name is a hard link, for no file is changed in place.
    """

    def __init__(self) -> None:
        super().__init__()
        self._latest: tuple[tuple[int, int], Path] | None = None

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write `checkpoint` to `path`."""
        assert storage_options is None
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(path.name + ".tmp")
        beside.unlink(missing_ok=True)
        moment = checkpoint["epoch"], checkpoint["global_step"]
        if not self._link(moment, beside):
            with beside.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
        self._latest = moment, path

    def _link(self, moment: tuple[int, int], beside: Path) -> bool:
        if self._latest is None or self._latest[0] != moment:
            return False
        try:
            beside.hardlink_to(self._latest[1])
        except OSError:  # not every file system has links
            return False
        return True
