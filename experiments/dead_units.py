"""How much of v1's first hidden layer survives the first steps at a learning rate.

    python -m experiments.dead_units data/rsna100 --lr 0.01 0.001

Prints, for each rate and seed, the share of the 1000 units that are above zero for any image of the batch.
"""

import argparse
from pathlib import Path

import lightning as L
import torch
from torch.nn import functional as F

from boneage_pl.data.datamodule import BoneAgeDataModule
from boneage_pl.data.transforms.compose import Compose
from boneage_pl.data.transforms.geometric import RandomHorizontalFlip
from boneage_pl.model.inception import InceptionRegressor
from boneage_pl.model.input_spec import InputSpec, Normalize
from experiments.save_measurement import keep


def alive_after(data: BoneAgeDataModule, lr: float, seed: int, steps: int) -> float:
    L.seed_everything(seed, verbose=False)
    network = InceptionRegressor(data.resize_spec.size).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=lr)
    alive, flips = [], Compose([RandomHorizontalFlip()])
    network.hidden[1].register_forward_hook(
        lambda _m, _i, out: alive.append((out > 0).any(0).float().mean().item())
    )
    for _, batch in zip(range(steps + 1), data.train_dataloader(), strict=False):
        with torch.autocast("cpu", torch.bfloat16):
            image = Normalize(InputSpec())(flips(batch["image"], batch["key"]))
            months = network(image, batch["male"]).squeeze(1)
        optimizer.zero_grad()
        F.l1_loss(months, batch["bone_age"]).backward()
        optimizer.step()
    return alive[-1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("root")
    parser.add_argument("--lr", type=float, nargs="+", default=[0.01, 0.001])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--image-size", type=int, default=128)
    parser.add_argument("--keep", type=Path, help="write the numbers here too")
    options = parser.parse_args()
    data = BoneAgeDataModule(options.root, image_size=options.image_size)
    data.prepare_data()
    data.setup()
    found = []
    for lr in options.lr:
        shares = [alive_after(data, lr, seed, options.steps) for seed in options.seeds]
        found.append({"lr": lr, "alive": shares})
        print(f"lr {lr:g}: after {options.steps} steps alive:", ", ".join(f"{share:.1%}" for share in shares))
    if options.keep:
        keep(options.keep, {"steps": options.steps, "seeds": options.seeds, "rates": found})


if __name__ == "__main__":
    main()
