"""Where the configuration lives: inside an installed wheel, or at the top of a checkout."""

from pathlib import Path

_INSTALLED = Path(__file__).parents[1] / "conf"
CONF_DIR = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[3] / "conf"
