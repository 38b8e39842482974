"""The wheel contains the configuration, so that installed commands work in any folder."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel and install it into a new folder, without network access."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    offline = {**os.environ, "PIP_NO_INDEX": "1", "PIP_CACHE_DIR": str(folder / "cache")}
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(ROOT)]
    subprocess.run(build, check=True, env=offline, timeout=300)
    (wheel,) = folder.glob("boneage_pl-*.whl")
    site = folder / "site"
    subprocess.run(
        [*pip, "install", "--no-deps", "--target", str(site), str(wheel)],
        check=True,
        env=offline,
        timeout=300,
    )
    return site


def run(installed: Path, cwd: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-m", "boneage_pl", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_installed_command_composes_own_config(installed: Path, tmp_path: Path):
    assert "lr: 0.01" in run(installed, tmp_path, "--cfg", "job", "+experiment=v1")
    assert str(installed / "boneage_pl" / "conf") in run(
        installed, tmp_path, "--info", "searchpath", "+experiment=v1"
    )
    assert "lr_0.1_failure" in run(installed, tmp_path, "--help")
    assert (installed / "boneage_pl" / "evaluation" / "templates" / "report.html").is_file()
    assert list(tmp_path.iterdir()) == []


def test_installed_package_runs_custom_experiment(installed: Path, tmp_path: Path):
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "mine" / "experiment" / "slow.yaml").write_text(
        "# @package _global_\n# v1, but slower.\ndefaults:\n  - v1\noptimizer:\n  lr: 0.0003\n"
    )
    text = run(installed, tmp_path, "--config-dir", "mine", "--cfg", "job", "+experiment=slow")
    assert "lr: 0.0003" in text
    assert "max_epochs: 30" in text
    assert "v1, but slower." in run(installed, tmp_path, "--config-dir", "mine", "--help")
