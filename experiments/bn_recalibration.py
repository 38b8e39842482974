"""How much of a validation error is BatchNorm's running statistics, and not the weights.

    python -m experiments.bn_recalibration outputs/v1/<run> saved/*.ckpt

For each checkpoint of a run (copy its last.ckpt at the end of every epoch) prints the MAE on the run's
validation rows, in months, with the statistics as they were saved and with those of 16 training batches,
re-estimated. bn_recalibration.json in the run's folder has a row for each; existing rows are kept.
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from itertools import islice, pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from boneage_pl.data.datamodule import BoneAgeDataModule
from boneage_pl.data.transforms.compose import Compose
from boneage_pl.data.transforms.geometric import RandomHorizontalFlip
from boneage_pl.model.inference import InferenceModule
from boneage_pl.training.checkpoint import load_for_inference
from experiments.save_measurement import keep


def mae(reader: InferenceModule, data: BoneAgeDataModule) -> float:
    errors = [reader(batch["image"], batch["male"]) - batch["bone_age"] for batch in data.val_dataloader()]
    return torch.cat(errors).abs().mean().item()


def seen(reader: InferenceModule, data: BoneAgeDataModule, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    flips = Compose([RandomHorizontalFlip()])
    for batch in islice(data.train_dataloader(), count):
        image = reader.normalize(flips(batch["image"], batch["key"]))
        yield image.to(memory_format=torch.channels_last), batch["male"]


def recalibrate(network: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Set every BatchNorm's running mean and variance to their means over batches, as `update_bn` does."""
    network.eval()
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    for layer in layers:
        layer.train().reset_running_stats()
        layer.momentum = None  # a plain mean over the batches
    for image, male in batches:
        network(image, male)
    network.eval()


def main() -> None:
    """Measure each checkpoint."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("checkpoints", type=Path, nargs="+", help="of it")
    parser.add_argument("--batches", type=int, default=16)
    parser.add_argument("--keep", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    target = options.run / "bn_recalibration.json"
    rows = json.loads(target.read_text()) if target.exists() else []
    data = None
    for path in sorted(options.checkpoints, key=lambda path: path.stat().st_mtime):
        reader, checkpoint = load_for_inference(path)
        record = checkpoint.metadata
        if data is None:
            side = record.image_size
            data = BoneAgeDataModule(
                record.config["data"]["root"], image_size=side, split_file=options.run / "split.csv"
            )
            data.prepare_data()
            data.setup()
        if record.epoch in {row["epoch"] for row in rows}:
            continue
        reader.eval().to(memory_format=torch.channels_last)
        precise = record.precision != "bf16-mixed"
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            saved = mae(reader, data)
            recalibrate(reader.network, seen(reader, data, options.batches))
            anew = mae(reader, data)
        rows.append({"epoch": record.epoch, "saved": round(saved, 3), "reestimated": round(anew, 3)})
        print(f"epoch {record.epoch:3d}  saved {saved:9.3f}  re-estimated {anew:9.3f}", flush=True)
        target.write_text(json.dumps(rows, indent=1) + "\n")
    if options.keep:
        rows.sort(key=lambda row: row["epoch"])
        steps = {
            kind: sum(abs(b[kind] - a[kind]) for a, b in pairwise(rows)) / (len(rows) - 1)
            for kind in ("saved", "reestimated")
        }
        lower = sum(row["reestimated"] < row["saved"] for row in rows)
        keep(options.keep, {"batches": options.batches, "epochs": rows, "mean_step": steps, "lower": lower})


if __name__ == "__main__":
    main()
