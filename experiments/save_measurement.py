"""Numbers of a measurement, with what it ran on, as a record beside those of runs."""

import json
from pathlib import Path
from typing import Any

from boneage_pl.training.provenance import describe_environment


def keep(path: Path, numbers: dict[str, Any]) -> None:
    """Write numbers, versions, commit, hardware and the command as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**numbers, "by": describe_environment()}, indent=1) + "\n")
