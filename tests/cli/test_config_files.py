"""A user's configuration file whose settings would be ignored is rejected, with file and line."""

from pathlib import Path

import pytest

from boneage_pl.cli.entrypoint import check_config_files
from boneage_pl.errors import BoneAgeError

PACKAGE = "# @package _global_\n"


@pytest.mark.parametrize(
    "text",
    [
        PACKAGE + "optimizer: {lr: 0.001}\n",
        "# What it is.\n\n" + PACKAGE + "optimizer: {lr: 0.001}\n",
        PACKAGE.replace("\n", "\r\n") + "optimizer:\r\n  lr: 0.001\r\n",
        PACKAGE + "base: &base {lr: 1}\noptimizer:\n  <<: *base\n",
        PACKAGE + "model: {weights: {0: 0.5, 1: 2.0}}\n",
        PACKAGE,
    ],
)
def test_usable_experiment_passes(tmp_path: Path, text: str):
    write(tmp_path, text)
    check_config_files(["--config-dir", str(tmp_path)])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\ufeff" + PACKAGE + "optimizer: {lr: 0.001}\n", "line 1: .*byte order mark"),
        ("optimizer: {lr: 0.001}\n", "line 1: an experiment must begin"),
        ("optimizer: {lr: 0.001}\n" + PACKAGE, "line 1: an experiment must begin"),
        (PACKAGE + "optimizer:\n\tlr: 0.001\n", "line 3: .*tab"),
        (PACKAGE + "optimizer: {lr: 0.001\n", "line 3"),
        (PACKAGE + "optimizer: 'caf\xe9\n", "UTF-8"),
    ],
)
def test_unusable_experiment_is_refused_by_line(tmp_path: Path, text: str, words: str):
    file = write(tmp_path, text, encoding="latin-1" if "\xe9" in text else "utf-8")
    with pytest.raises(BoneAgeError, match=words) as refused:
        check_config_files(["--config-dir", str(tmp_path)])
    assert str(file) in str(refused.value)


def write(folder: Path, text: str, encoding: str = "utf-8") -> Path:
    file = folder / "experiment" / "mine.yaml"
    file.parent.mkdir()
    file.write_bytes(text.encode(encoding))
    return file
