"""How a command starts: configuration, help, overrides, errors."""

from pathlib import Path

__all__ = ["CONF_DIR"]

_INSTALLED = Path(__file__).parents[1] / "conf"
# Where the configuration lives: inside an installed wheel, or at the top of a checkout.
CONF_DIR = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[3] / "conf"
