"""The Dockerfile copies existing files that .dockerignore allows and an installation needs."""

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
    """All but constraints.txt, which is passed to pip."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    read = {"pyproject.toml", project["project"]["readme"], *project["project"]["license-files"]}
    read |= {path.split("/")[0] for path in (*wheel["packages"], *wheel["force-include"])}
    assert read | {"constraints.txt"} == {name for names in COPIED for name in names}


def test_container_serves_by_default():
    found = {
        word: json.loads(line.removeprefix(word))
        for line in LINES
        for word in ("ENTRYPOINT", "CMD")
        if line.startswith(word)
    }
    assert "USER boneage" in LINES
    assert any(line.startswith("HEALTHCHECK") and "/healthz" in line for line in LINES)
    _, *entry = found["ENTRYPOINT"]
    module, *options = found["CMD"]
    assert (entry, module) == (["-m"], "boneage_pl.app")
    result = subprocess.run(
        [sys.executable, "-m", module, *options, "--cfg", "job"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "host: 0.0.0.0" in result.stdout
