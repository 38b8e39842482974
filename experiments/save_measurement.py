"""Save measurements as JSON, with the environment that they were made in."""

import json
from pathlib import Path
from typing import Any

from boneage_pl.training.provenance import describe_environment


def save_measurement(path: Path, numbers: dict[str, Any]) -> None:
    """Write the numbers, package versions, commit, hardware and command line as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**numbers, "by": describe_environment()}, indent=1) + "\n")
