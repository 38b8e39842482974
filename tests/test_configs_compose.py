"""Every choice of the configuration composes."""

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from boneage_pl.cli import CONF_DIR


@pytest.mark.parametrize(
    "file", sorted(CONF_DIR.rglob("*.yaml")), ids=lambda file: str(file.relative_to(CONF_DIR))
)
def test_config_composes_and_says_what_it_is(file: Path):
    group, name = file.parent.relative_to(CONF_DIR).as_posix(), file.stem
    top, overrides = (name, []) if group == "." else ("config", [f"{group}={name}"])
    if file.is_relative_to(CONF_DIR / "experiment"):
        overrides = [f"+experiment={file.relative_to(CONF_DIR / 'experiment').with_suffix('')}"]
    elif top == "config":
        overrides.append("+experiment=v1")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose(top, overrides=overrides, return_hydra_config=group.startswith("hydra"))
    ours = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    assert OmegaConf.to_container(ours, resolve=True)
    assert re.match(r"# (@package .*\n# )?[A-Z]", file.read_text(encoding="utf-8"))
