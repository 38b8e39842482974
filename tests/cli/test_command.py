import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from boneage_pl.cli import CONF_DIR
from boneage_pl.cli.help import config_keys
from boneage_pl.cli.overrides import PATHS, check_paths, quote_override
from boneage_pl.errors import BoneAgeError

AWKWARD = [
    "2024_01",
    "1e3",
    "true",
    "runs/lr=0.1/best.ckpt",
    "a,b",
    "[old] runs",
    "Größe/été",
    "{x}",
    'say "hi"',
    "it's",
    "a(b)",
    "back\\[slash]",
]


@pytest.mark.parametrize("path", AWKWARD)
def test_check_paths_refuses_awkward_path_with_working_form(path: str):
    with pytest.raises(BoneAgeError, match="Write it as") as error:
        check_paths([f"ckpt={path}"])
    shown = str(error.value).splitlines()[1].strip()
    (argument,) = shlex.split(shown)  # as the shell passes it
    check_paths([argument])
    assert OverridesParser.create().parse_override(argument).value() == path


@pytest.mark.parametrize(
    "path", ["v1", "outputs/v1/2026-01-01_10-00-00", "/data/bone-age_2", "my run/best.ckpt", "2017"]
)
def test_check_paths_accepts_plain_path(path: str):
    check_paths([f"ckpt={path}", f"data.root={path}", "+experiment=v2"])
    assert OverridesParser.create().parse_override(shlex.split(quote_override("ckpt", path))[0])


def test_check_paths_accepts_checkpoint_list():
    check_paths(["ckpt=[v1,outputs/v2/2026-01-01_10-00-00]"])
    with pytest.raises(BoneAgeError, match="Write it as"):
        check_paths(["data.root=[v1,v2]"])


def test_check_paths_quotes_each_path_of_list():
    with pytest.raises(BoneAgeError, match="Write it as") as error:
        check_paths(["runs=[v1,~/a (1)]"])
    (argument,) = shlex.split(str(error.value).splitlines()[1])
    assert OverridesParser.create().parse_override(argument).value() == ["v1", "~/a (1)"]


def test_named_options_exist():
    chosen = ["+experiment=v3", "data=phantom"]
    keys = {key for path in CONF_DIR.glob("*.yaml") for key in config_keys(path.stem, chosen)}
    assert not {*PATHS} - keys - {"resume", "hydra.run.dir", "hydra.sweep.dir"}


def test_check_paths_refuses_commas_as_sweep():
    check_paths(["-m", "ckpt=a,b"])
