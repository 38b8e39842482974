"""`--help` and "did you mean" for overrides."""

from contextlib import suppress
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf

from boneage_pl.cli import CONF_DIR
from boneage_pl.utils.files import expand_path

_TEXT = """Skeletal age in months from hand radiographs (RSNA 2017), in PyTorch Lightning.

  python -m boneage_pl +experiment=NAME [option=value ...]
  python -m boneage_pl resume=RUN
  python -m boneage_pl.download data.root=FOLDER   download the RSNA's radiographs
  python -m boneage_pl.prepare data.root=FOLDER    build the image cache ahead of the first training
  python -m boneage_pl.evaluate ckpt=RUN           evaluate on its validation images or another data set
  python -m boneage_pl.predict ckpt=RUN images=FILES   predict bone age from radiographs
  python -m boneage_pl.export ckpt=RUN format=onnx     export for use without this package
  python -m boneage_pl.app ckpt=RUN                serve a web page and a REST API
  python -m boneage_pl.compare runs=[RUN,RUN]      compare runs: MAE, configuration, paired tests

experiments
{experiments}

data sets (data=NAME)
{data}

options, a few of many
  data.root=FOLDER         folder of the radiographs (default: $BONEAGE_DATA, or data/rsna)
  data.resize_mode=pad     pad to a square; the published mode is crop (center)
  data.image_size=128      side in pixels; published: 500
  resume=latest            resume the newest unfinished run, or resume=outputs/NAME/<date_time>
  ckpt=v1                  initial weights: a checkpoint, a run folder, or an experiment's newest run
  model.weights=null       random initial weights instead of ImageNet's; or a torchvision file
  trainer.max_epochs=2     a shorter run
  trainer.precision=32     the published precision (auto: bfloat16 if supported)
  trainer=ddp trainer.devices=4      several devices, same batch size
  -m seed=1,2,3            a run per value, with mean and standard deviation
  hparams_search=optuna    search learning rate, batch size and patience (extra: sweep)
  --cfg job                print the configuration and exit
  --config-dir FOLDER      add your own experiment/, model/, loss/ ... (docs/ARCHITECTURE.md)

Results are in outputs/NAME/<date_time>/; view them with  tensorboard --logdir outputs"""


def format_help(arguments: list[str]) -> str:
    """Return the help text, including experiments of a `--config-dir` in `arguments`."""
    roots = [CONF_DIR, *config_dirs(arguments)]
    return _TEXT.format(experiments=_describe_group(roots, "experiment"), data=_describe_group(roots, "data"))


def _describe_group(roots: list[Path], group: str) -> str:
    files = {name: file for root in roots for name, file in config_files(root, group).items()}
    width = max(map(len, files))
    return "\n".join(f"  {name:<{width}}  {_first_comment(file)}" for name, file in files.items())


def config_files(root: Path, group: str) -> dict[str, Path]:
    """Return the files of a configuration group under `root`, by name."""
    files = sorted((root / group).rglob("*.yaml"))
    return {file.relative_to(root / group).with_suffix("").as_posix(): file for file in files}


def _first_comment(file: Path) -> str:
    """Return the first comment of a configuration file, which describes it."""
    with file.open(encoding="utf-8") as lines:
        comments = (
            line.lstrip("# ").strip() for line in lines if line.startswith("#") and "@package" not in line
        )
        return next(comments, "")


def config_dirs(arguments: list[str]) -> list[Path]:
    """Return the folders of `--config-dir` in `arguments`."""
    flags = ("--config-dir", "-cd")
    after = [value for flag, value in pairwise(arguments) if flag in flags]
    joined = [a.partition("=")[2] for a in arguments if a.startswith("--config-dir=")]
    return [expand_path(folder) for folder in (*after, *joined)]


def suggest_overrides(arguments: list[str], config_name: str) -> list[str]:
    """Return hints for overrides with unknown options or choices."""
    groups = [a for a in arguments if group_choices(a.lstrip("+").partition("=")[0], arguments)]
    keys = config_keys(config_name, groups)
    hints = []
    for argument in arguments:
        try:
            override = OverridesParser.create().parse_override(argument)
            key, value = override.key_or_group, None if override.is_sweep_override() else override.value()
        except HydraException:
            continue
        if names := group_choices(key, arguments):
            values = [v for v in (value if isinstance(value, list) else [value]) if isinstance(v, str)]
            hints += [_nearest_names(f"{key}={v}", v, names, f"{key}=") for v in values if v not in names]
        elif key not in keys and not argument.startswith("+"):
            hints.append(_nearest_names(key, key, keys, ""))
    return [hint for hint in hints if hint]


def _nearest_names(typed: str, name: str, names: list[str], before: str) -> str:
    ends = [n for n in names if n.endswith(f".{name}")]  # lr → optimizer.lr
    near = list(dict.fromkeys([*get_close_matches(name, names, 2), *ends]))[:3]
    return f"{typed}: did you mean {' or '.join(before + n for n in near)}?" if near else ""


def group_choices(group: str, arguments: list[str]) -> list[str]:
    """Return the choices of a configuration group; empty if it does not exist."""
    roots = [CONF_DIR, *config_dirs(arguments)]
    return sorted({name for root in roots for name in config_files(root, group)})


def config_keys(config_name: str, groups: list[str]) -> list[str]:
    """Return the dotted names of all options, for the chosen groups if they can be composed."""
    for overrides in (groups, []):
        GlobalHydra.instance().clear()  # of the failed command
        with suppress(HydraException), initialize_config_dir(str(CONF_DIR), version_base="1.3"):
            return _dotted_keys(OmegaConf.to_container(compose(config_name, overrides), resolve=False))
    return []


def _dotted_keys(node: Any, at: str = "") -> list[str]:
    if not isinstance(node, dict):
        return []
    paths = [(f"{at}.{key}" if at else str(key), value) for key, value in node.items()]
    return [key for path, value in paths for key in (path, *_dotted_keys(value, path))]
