"""What a mistyped option or experiment was most likely meant to be. Imports no torch."""

from difflib import get_close_matches
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from boneage_pl.cli.conf_path import CONF_DIR
from boneage_pl.cli.usage import config_dirs, config_files


def suggest_overrides(arguments: list[str], config_name: str) -> list[str]:
    """Return a line with the nearest names for each override that names no option, or no file of a group."""
    keys = _config_keys(config_name)
    found = []
    for argument in arguments:
        try:
            override = OverridesParser.create().parse_override(argument)
            key, value = override.key_or_group, None if override.is_sweep_override() else override.value()
        except HydraException:
            continue
        if names := group_choices(key, arguments):
            values = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str)]
            found += [_nearest_names(f"{key}={v}", v, names, f"{key}=") for v in values if v not in names]
        elif key not in keys and not argument.startswith("+"):
            found.append(_nearest_names(key, key, keys, ""))
    return [hint for hint in found if hint]


def _nearest_names(typed: str, name: str, names: list[str], before: str) -> str:
    ends = [n for n in names if n.endswith(f".{name}")]  # lr → optimizer.lr
    near = list(dict.fromkeys([*get_close_matches(name, names, 2), *ends]))[:3]
    return f"{typed}: did you mean {' or '.join(before + n for n in near)}?" if near else ""


def group_choices(group: str, arguments: list[str]) -> list[str]:
    """Return the names that a group of the configuration can be set to; none if there is no such group."""
    roots = [CONF_DIR, *config_dirs(arguments)]
    return sorted({name for root in roots for name in config_files(root, group)})


def _config_keys(config_name: str) -> list[str]:
    GlobalHydra.instance().clear()  # of the command that has just been refused
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose(config_name)
    return _dotted_keys(OmegaConf.to_container(config, resolve=False))


def _dotted_keys(node: Any, at: str = "") -> list[str]:
    if not isinstance(node, dict):
        return []
    paths = [(f"{at}.{key}" if at else str(key), value) for key, value in node.items()]
    return [found for path, value in paths for found in (path, *_dotted_keys(value, path))]
