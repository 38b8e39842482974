"""The container's recipe: what it copies is there, is let through, and is all that an installation reads."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
COPIED = [line.split()[1:-1] for line in LINES if line.startswith("COPY") and "--from" not in line]


def test_copied_files_exist_and_pass_dockerignore():
    admitted = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    names = [name for names in COPIED for name in names]
    assert names
    for name in names:
        assert (ROOT / name).exists()
        assert f"!{name}" in admitted


def test_image_has_what_installation_reads():
    """Besides constraints.txt, which pip is given."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    read = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    read |= {path.split("/")[0] for path in (*wheel["packages"], *wheel["force-include"])}
    assert read | {"constraints.txt"} == {name for names in COPIED for name in names}


def test_entrypoint_is_predict():
    (entry,) = (line for line in LINES if line.startswith("ENTRYPOINT"))
    _, *command = json.loads(entry.removeprefix("ENTRYPOINT"))
    assert command == ["-m", "boneage_pl.predict"]
    said = subprocess.run([sys.executable, *command, "--help"], capture_output=True, text=True)
    assert said.returncode == 0
    assert "Predict bone age from radiographs" in said.stdout
