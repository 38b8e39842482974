"""What `--help` prints: the experiments and data sets in plain words, read from the configuration."""

from itertools import pairwise
from pathlib import Path

from boneage_pl.cli.conf_path import CONF_DIR

_TEXT = """Skeletal age in months from hand radiographs (RSNA 2017), in PyTorch Lightning.

  python -m boneage_pl +experiment=NAME [option=value ...]
  python -m boneage_pl resume=RUN
  python -m boneage_pl.download data.root=FOLDER   the RSNA's radiographs, once their terms are accepted
  python -m boneage_pl.prepare data.root=FOLDER    every image once, ahead of the first training
  python -m boneage_pl.evaluate ckpt=RUN           how far off it is, on its own validation or other images
  python -m boneage_pl.predict ckpt=RUN images=FILES   how old the bones on radiographs are, DICOM too
  python -m boneage_pl.export ckpt=RUN format=onnx     a file for where this package is not; weights, a card
  python -m boneage_pl.app ckpt=RUN                a page in the browser: drop a radiograph, read the answer
  python -m boneage_pl.compare runs=[RUN,RUN]      what differs between runs, and whether it matters

experiments
{experiments}

data sets (data=NAME)
{data}

options, a few of many
  data.root=FOLDER         where the radiographs are (else $BONEAGE_DATA, else data/rsna)
  data.fit=pad             the whole radiograph on black; crop, its middle, is published
  data.image_size=128      pixels a side; 500 is the published size
  resume=latest            go on with the newest unfinished run, or resume=outputs/NAME/<date_time>
  ckpt=v1                  weights to start from: a checkpoint, a run's folder, or an experiment's newest run
  model.weights=null       random initial weights instead of ImageNet's; or a file of torchvision's
  trainer.max_epochs=2     a shorter run
  trainer.precision=32     the published arithmetic (auto: bfloat16 where the hardware has it)
  trainer=ddp trainer.devices=4      several devices, the same batch of 32
  -m seed=1,2,3            a run for each value; ends with their mean and standard deviation
  hparams_search=optuna    search learning rate, batch size and patience (extra: sweep)
  --cfg job                print the whole configuration and stop
  --config-dir FOLDER      add a folder of your own with experiment/, model/, loss/ ... (docs/ARCHITECTURE.md)

Results go to outputs/NAME/<date_time>/; see them with  tensorboard --logdir outputs"""


def format_help(arguments: list[str]) -> str:
    """Return the help text, with the experiments of a `--config-dir` among `arguments`."""
    roots = [CONF_DIR, *config_dirs(arguments)]
    return _TEXT.format(experiments=_describe_group(roots, "experiment"), data=_describe_group(roots, "data"))


def _describe_group(roots: list[Path], group: str) -> str:
    files = {name: file for root in roots for name, file in config_files(root, group).items()}
    width = max(map(len, files))
    return "\n".join(f"  {name:<{width}}  {_first_comment(file)}" for name, file in files.items())


def config_files(root: Path, group: str) -> dict[str, Path]:
    """Return a configuration group's files under `root` by the name that chooses them."""
    files = sorted((root / group).rglob("*.yaml"))
    return {file.relative_to(root / group).with_suffix("").as_posix(): file for file in files}


def _first_comment(file: Path) -> str:
    """Return a configuration file's first comment, which says in plain words what it is."""
    with file.open(encoding="utf-8") as lines:
        comments = (
            line.lstrip("# ").strip() for line in lines if line.startswith("#") and "@package" not in line
        )
        return next(comments, "")


def config_dirs(arguments: list[str]) -> list[Path]:
    """Return the folders of `--config-dir` among a command's arguments."""
    flags = ("--config-dir", "-cd")
    after = [value for flag, value in pairwise(arguments) if flag in flags]
    joined = [a.partition("=")[2] for a in arguments if a.startswith("--config-dir=")]
    return [Path(folder) for folder in (*after, *joined)]
