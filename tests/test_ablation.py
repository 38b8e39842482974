"""The ablation: the first step is the published recipe, each changes one part, the last is v3."""

import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from boneage_pl.cli import CONF_DIR
from boneage_pl.cli.instantiate import instantiate
from boneage_pl.data.transforms.compose import Compose
from experiments.ablation import CONF as STEPS_CONF
from experiments.ablation import STEPS
from tests.conftest import SMALL_PHANTOM

ROOT = Path(__file__).parents[1]
OPENED = ("data", "trainer")
NAMES = [step.stem for step in STEPS]


def composed(experiment: str) -> Any:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose(
            "config", overrides=[f"+experiment={experiment}", f"hydra.searchpath=[file://{STEPS_CONF}]"]
        )


def plain(config: Any) -> dict[str, Any]:
    return {**OmegaConf.to_container(config, resolve=False), "suggested_next": None}


def changed(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Return the groups, or the options of data and trainer, in which two configurations differ."""

    def opened(config: dict[str, Any]) -> dict[str, Any]:
        inside = {f"{part}.{key}": value for part in OPENED for key, value in config[part].items()}
        return inside | {key: value for key, value in config.items() if key not in OPENED}

    these, those = opened(one), opened(other)
    return {key for key in these | those if these.get(key) != those.get(key)}


def printed(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)


def test_last_step_is_v3_and_first_is_published():
    assert plain(composed(NAMES[-1])) == plain(composed("v3"))
    budget = {"data.split_protocol", "data.val_fraction", "data.image_size", "trainer.max_epochs", "model"}
    assert changed(plain(composed(NAMES[0])), plain(composed("v1"))) == budget


def test_each_step_changes_one_part():
    steps = [plain(composed(name)) for name in NAMES]
    assert [changed(before, after) for before, after in pairwise(steps)] == [
        {"optimizer", "scheduler", "trainer.gradient_clip_val", "data.batch_size"},
        {"sampler"},
        {"model", "transforms"},
        {"model"},
        {"transforms", "data.resize_mode"},
        {"transforms"},
        {"transforms"},
        {"model", "loss"},
        {"transforms", "data.image_size", "tta", "scheduler"},
    ]


@pytest.mark.parametrize("name", NAMES)
def test_steps_keep_trainable_images(name: str):
    config = composed(name)
    transforms = instantiate(config.transforms, "transforms")
    images = torch.randint(0, 256, (2, 1, *[config.data.image_size] * 2), dtype=torch.uint8)
    for side in ("train", "validation"):
        seen = Compose.from_config(transforms[side])(images, torch.tensor([1, 2]))
        assert seen.shape == (2, 1, *[160 if name == NAMES[-1] else 128] * 2)


@pytest.mark.slow
def test_ablation_trains_missing_steps_and_prints_table(tmp_path: Path):
    options = [option for option in SMALL_PHANTOM if "image_size" not in option]
    small = [
        *options,
        "data.image_size=64",
        "trainer.max_epochs=1",
        "data.batch_size=20",
        "model.backbone=test_efficientnet",
        "model.weights=null",
    ]
    command = [sys.executable, "-m", "experiments.ablation", str(tmp_path / "phantom")]
    command += ["--folder", str(tmp_path / "runs"), "--also", *small]
    saved = str(tmp_path / "ablation.json")
    for steps in (["7"], ["7", "8"]):
        done = printed([*command, "--save", saved, "--steps", *steps])
    assert "step_8: " in done.stdout
    assert "step_7: " not in done.stdout, "already trained"
    table = [line for line in done.stdout.splitlines() if line.startswith("| A")]
    assert [line.split("|")[1].strip() for line in table] == [
        "All augmentations: also intensity, blur, resolution, erasing and borders",
        "A distribution over months beside the number",
    ]
    assert " (" in table[1].split("|")[3], "the difference from the step before, with its interval"
    other = tmp_path / "other_seed.json"
    other.write_text(Path(saved).read_text().replace('"seed": 1', '"seed": 2'))
    again = printed([*command[:3], "--show", saved, str(other)]).stdout.splitlines()
    assert [line for line in again if line.startswith("| A")] == [*table, *table]
    assert [line for line in again if line.startswith("seed")] == ["seed 1", "seed 2"]
