"""Links and paths in README and docs exist, and their commands are valid."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from boneage_pl.cli import CONF_DIR
from boneage_pl.data.phantom import write_phantom
from tests.conftest import SMALL_PHANTOM
from tests.helpers.dicom_files import ramp, write_dicom

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def commands_of(page: Path) -> list[list[str]]:
    """Return the Python commands of a page as words; `<…>` becomes `FOLDER`."""
    lines = re.findall(r"^    (python .*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    syntax = re.compile(r"\||\s\[|…")  # optional parts and alternatives are no commands
    commands = [shlex.split(re.sub(r"<[^>]*>", "FOLDER", line), comments=True) for line in lines]
    return [command for command in commands if not syntax.search(" ".join(command))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_and_links_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    paths = {
        ROOT / path
        for path in re.findall(r"`((?:src|conf|tests|docs|benchmarks|experiments)/[\w./-]+)`", text)
    }
    links = {page.parent / link for link in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text)}
    expected = {path for path in paths | links if "NAME" not in path.name}
    assert [path for path in sorted(expected) if not path.exists()] == []
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src").rglob("*.py"))
    assert [name for name in re.findall(r"`(\w+)\(", text) if f"def {name}(" not in source] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_sections_exist(page: Path):
    for link, section in re.findall(r"\]\(([\w./-]*)#([\w-]+)\)", page.read_text(encoding="utf-8")):
        target = (page.parent / link if link else page).read_text(encoding="utf-8")
        headings = [
            re.sub(r"[^\w -]", "", line).lower().replace(" ", "-")
            for line in re.findall(r"^#+ (.*)$", target, re.MULTILINE)
        ]
        assert section in headings, link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_of_commands_exist(page: Path):
    for _, _, module, *words in (c for c in commands_of(page) if c[1:3] and c[2].startswith("boneage_pl")):
        top = module.partition(".")[2] or "config"
        options = [
            word for word in words if "=" in word and not word.startswith(("+experiment=gentle", "resume="))
        ]
        first = [re.sub(r"^(seed=\d+),.*", r"\1", option) for option in options]  # of a sweep
        GlobalHydra.instance().clear()
        with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            if top == "config" and not any(option.startswith("+experiment") for option in first):
                first.append("+experiment=v1")
            compose(top, overrides=first)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_commands_of_the_readme_run_in_their_order(tmp_path: Path):
    """Run them on small data for an epoch, except the download and the server."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    experiment = re.search(r"^    # @package _global_\n(?:    .*\n)+", readme, re.MULTILINE)
    assert experiment
    text = re.sub(r"^    ", "", experiment[0], flags=re.MULTILINE)
    (tmp_path / "mine" / "experiment" / "gentle.yaml").write_text(text)
    environment = {**os.environ, "BONEAGE_DATA": str(tmp_path / "data" / "phantom"), "PYTHONPATH": str(ROOT)}
    small = [*SMALL_PHANTOM[3:], "trainer.max_epochs=1", "model.weights=null", "data.batch_size=20"]

    def run(*words: str) -> None:
        command = [sys.executable, *words[1:]]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{shlex.join(words)}\n{done.stdout}\n{done.stderr}"

    phantom = [
        "data=phantom",
        "data.phantom.size=128",
        "data.phantom.count=120",
    ]  # six in each group: five folds
    run("python", "-m", "boneage_pl.prepare", *phantom)
    other = tmp_path / "other"  # unseen children
    write_phantom(other, count=120, size=128, seed=9)
    table = pd.read_csv(other / "boneage-training-dataset.csv")
    for i in table["id"]:
        image = other / "boneage-training-dataset" / f"{i}.png"
        image.rename(image.with_name(f"{i + 1000}.png"))
    table.assign(id=table["id"] + 1000).to_csv(other / "boneage-training-dataset.csv", index=False)
    folder = tmp_path / "data" / "phantom" / "boneage-training-dataset"
    images = sorted(folder.glob("*.png"))
    (tmp_path / "hand.png").write_bytes(images[0].read_bytes())
    (tmp_path / "study").mkdir()
    write_dicom(tmp_path / "study" / "a.dcm", ramp())
    (tmp_path / "others.csv").write_text("id,predicted\n" + "".join(f"{i.stem},100\n" for i in images))
    for _, *words in commands_of(ROOT / "README.md"):
        line = " ".join(words)
        if "download" in line or "boneage_pl.app" in line:
            continue
        if "resume=latest" in words:  # as if interrupted before its report
            min(tmp_path.glob("outputs/v1/*/report/summary.json")).unlink()
        words = [word.replace("devices=4", "devices=2") for word in words]
        if "hparams_search" in line:
            words.append("hydra.sweeper.n_trials=2")
        if "precision=int8" in words:
            words.append("max_mae_increase=99")  # for an untrained network
        words[0] = words[0].replace("examples/", f"{ROOT}/examples/")
        if words[1] == "boneage_pl" and "resume=latest" not in words:
            words += small
            if "hparams_search" not in line:
                words.append("optimizer.lr=0.0001")  # else three steps lead to huge predictions
            if "v3" in line:
                words += ["model.backbone=test_efficientnet", "transforms.train.size.size=null"]
        root = other if words[1] == "boneage_pl.evaluate" else folder.parent
        options = [w.replace("data.root=FOLDER", f"data.root={root}") for w in words]
        run("python", *[w.replace("images=FOLDER", f"images={folder}") for w in options])
