import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from boneage_pl.cli import CONF_DIR
from boneage_pl.cli.checks import check_values
from boneage_pl.data.tables.load import read_table
from boneage_pl.download import download
from boneage_pl.errors import BoneAgeError
from tests.fetch.archive_server import (
    TABLE,
    TRAINING,
    TRAINING_IDS,
    VALIDATION,
    VALIDATION_IDS,
    Site,
    challenge_files,
    noise,
    serving,
    tree,
)

COUNTS = ["training.count=5", "validation.count=4", "retry_wait=0.01"]
Process = subprocess.CompletedProcess[str]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site(**challenge_files())) as running:
        yield running


def typed(site: Site, root: Path, *more: str) -> list[str]:
    return [f"data.root={root}", f"source={site.url}", "accept_terms=true", *COUNTS, *more]


def start(arguments: list[str]) -> subprocess.Popen[str]:
    """Start the command as in a terminal, where Ctrl-C works."""
    return subprocess.Popen(
        [sys.executable, "-m", "boneage_pl.download", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process: subprocess.Popen[str]) -> Process:
    out, err = process.communicate(timeout=60)
    return Process(process.args, process.returncode, out, err)


def here(site: Site, root: Path, *more: str) -> None:
    """Run the command in this process, which is faster than `start`."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        config = compose("download", typed(site, root, *more))
    check_values(config)
    download(config)


def assert_complete(root: Path) -> None:
    """Check that both sets are complete and nothing else exists."""
    files = tree(root)
    assert "boneage_pl" not in files.pop(".download.json", b"{}").decode()
    table = files.pop("train.csv")
    assert table.startswith(b"id,boneage,male")
    assert files == {f"boneage-training-dataset/{i}.png": noise(i) for i in TRAINING_IDS}
    other = tree(root.with_name(f"{root.name}_validation"))
    del other[".download.json"], other["Bone Age Validation Set/Validation Dataset.csv"]
    assert other == {
        f"Bone Age Validation Set/boneage-validation-dataset-{n}/{i}.png": noise(i)
        for n, ids in VALIDATION_IDS.items()
        for i in ids
    }


def test_terms_are_required_and_command_is_printed(site: Site, tmp_path: Path):
    root = tmp_path / "my data"
    arguments = [a for a in typed(site, root) if not a.startswith("accept")] + ["accept_terms=false"]
    result = finish(start(arguments))
    assert result.returncode == 2
    assert "10.1148/radiol.2018180736" in result.stdout
    assert "non-commercial" in result.stdout
    assert site.requests == []
    assert not root.exists()
    (command,) = [line for line in result.stdout.splitlines() if line.strip().startswith("python -m")]
    command = command.replace("python", sys.executable, 1)
    shown = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0, shown.stderr
    assert_complete(root)


def test_both_sets_download_and_rerun_requests_nothing(site: Site, tmp_path: Path):
    root = tmp_path / "rsna"
    first = finish(start(typed(site, root)))
    assert first.returncode == 0, first.stderr
    assert_complete(root)
    assert sorted(read_table(root)["id"], key=int) == [str(i) for i in TRAINING_IDS]
    assert f"training: 5 images and rows in {root}\n" in first.stdout
    assert f"validation: 4 images and rows in {root}_validation\n" in first.stdout
    assert "\r" not in first.stderr  # no progress bar without a terminal
    record = json.loads((root / ".download.json").read_text())["unpacked"]
    assert {name: entry["files"] for name, entry in record.items()} == {TABLE: 1, TRAINING: 5}
    content = site.files[TRAINING]
    expected = {
        "etag": site.tag(content),
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert expected.items() <= record[TRAINING].items()
    requests = list(site.requests)
    second = finish(start(typed(site, f"{root}/")))  # with a trailing slash, as completed by a shell
    assert second.returncode == 0
    assert site.requests == requests


def test_second_process_waits_and_finds_it_done(site: Site, tmp_path: Path):
    root = tmp_path / "rsna"
    root.mkdir()
    with FileLock(root / ".download.lock"):
        processes = [start(typed(site, root)) for _ in range(2)]
        time.sleep(1.5)
        assert all(process.poll() is None for process in processes)
        assert site.requests == []
    assert [finish(process).returncode for process in processes] == [0, 0]
    assert_complete(root)
    assert len(site.requests) == 3  # each archive once


def test_interrupted_download_resumes_to_same_bytes(site: Site, tmp_path: Path):
    root, part = tmp_path / "rsna", tmp_path / "rsna" / f"{TRAINING}.part"
    site.stall_after = step = 2**15  # per response; the table's archive is shorter than that
    for number, ending in ((1, signal.SIGINT), (2, signal.SIGKILL)):
        process = start(typed(site, root))
        until = time.monotonic() + 30
        while not part.exists() or part.stat().st_size < number * step:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(ending)
        result = finish(process)
        if ending == signal.SIGINT:
            assert result.returncode == 130
            assert "Traceback" not in result.stderr
    site.stall_after = None
    result = finish(start(typed(site, root)))
    assert result.returncode == 0, result.stderr
    assert_complete(root)
    assert site.gets(TRAINING) == [(None, 200), (f"bytes={step}-", 206), (f"bytes={2 * step}-", 206)]
    assert len(site.gets(TABLE)) == 1  # extracted archives are not downloaded again


def test_missing_archive_is_one_error(site: Site, tmp_path: Path):
    del site.files[TRAINING]
    result = finish(start(typed(site, tmp_path / "rsna")))
    assert result.returncode == 2
    assert f"error: {site.url}{TRAINING} cannot be downloaded: HTTP 404" in result.stderr
    assert "rsna.org" in result.stderr
    assert "Traceback" not in result.stderr


def test_too_little_space_is_reported_before_the_first_byte(site: Site, tmp_path: Path):
    site.declared[TRAINING] = 10**18
    with pytest.raises(BoneAgeError, match=r"2,100,000,000\.\d GB are needed, [\d,.]+ [GM]B are free"):
        here(site, tmp_path / "rsna")
    assert not (tmp_path / "rsna" / f"{TRAINING}.part").exists()


def test_wrong_checksum_extracts_nothing(site: Site, tmp_path: Path):
    root, good = tmp_path / "rsna", hashlib.sha256(site.files[TRAINING]).hexdigest()
    site.files[TRAINING] += b"x"
    with pytest.raises(BoneAgeError, match="SHA-256"):
        here(site, root, f"training.sha256.images={good}")
    assert sorted(tree(root)) == [".download.json", f"{TRAINING}.damaged", "train.csv"]
    site.files[TRAINING] = site.files[TRAINING][:-1]
    here(site, root, f"training.sha256.images={good.upper()}")
    assert_complete(root)


def test_damaged_archive_alone_is_downloaded_again(site: Site, tmp_path: Path):
    root, good = tmp_path / "rsna", site.files[TRAINING]
    site.files[TRAINING] = good[:-200]
    with pytest.raises(BoneAgeError, match="damaged"):
        here(site, root)
    assert (root / f"{TRAINING}.damaged").exists()
    site.files[TRAINING] = good
    here(site, root)
    assert_complete(root)
    assert len(site.gets(TRAINING)) == 2
    assert len(site.gets(TABLE)) == 1


def test_kill_after_extraction_cleans_up_without_download(site: Site, tmp_path: Path):
    root = tmp_path / "rsna"
    here(site, root, "keep_archives=true")
    assert all((root / name).read_bytes() == site.files[name] for name in (TRAINING, TABLE))
    for folder in (root, tmp_path / "rsna_validation"):
        (folder / ".download.json").unlink()
    requests = list(site.requests)
    here(site, root)
    assert site.requests == requests
    assert_complete(root)


@pytest.mark.parametrize("count", ["training.count=6", "validation.count=3"])
def test_unexpected_count_is_an_error(site: Site, tmp_path: Path, count: str):
    with pytest.raises(BoneAgeError, match=f"{count.partition('.')[0]} set is incomplete.*{count[-1]}\\."):
        here(site, tmp_path / "rsna", count)


def test_lost_image_is_restored(site: Site, tmp_path: Path):
    root = tmp_path / "rsna"
    here(site, root)
    (root / "boneage-training-dataset/1377.png").unlink()
    with pytest.raises(BoneAgeError, match=r"(?s)training set is incomplete.*1377.*delete .*\.download"):
        here(site, root)
    (root / ".download.json").unlink()
    here(site, root)
    assert_complete(root)


def test_foreign_set_is_left_alone(site: Site, tmp_path: Path):
    root = tmp_path / "rsna"
    images = root / "boneage-training-dataset" / "boneage-training-dataset"  # in Kaggle's layout
    images.mkdir(parents=True)
    for i in TRAINING_IDS:
        (images / f"{i}.png").write_bytes(b"x")
    rows = "".join(f"{i},100,True\n" for i in TRAINING_IDS)
    (root / "boneage-training-dataset.csv").write_text(f"id,boneage,male\n{rows}")
    here(site, root)
    assert {name for name, _, _ in site.requests} == {VALIDATION}


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("source=file:///etc/", "file:///etc/"),
        ("retries=-1", "retries=-1"),
        ("timeout=soon", "timeout=soon"),
        ("data.root=", r"data\.root is empty"),
        ("data.root={root}/file/rsna", "cannot be written"),
        *((f"validation.root={{root}}/{place}", r"validation\.root=") for place in ("rsna", "rsna/in", ".")),
        ("data=phantom", "data="),
    ],
)
def test_invalid_option_is_named(site: Site, tmp_path: Path, option: str, words: str):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(BoneAgeError, match=words):
        here(site, tmp_path / "rsna", option.format(root=tmp_path))
    assert site.requests == []


def test_help_names_command_and_imports_no_torch(tmp_path: Path):
    code = (
        "import sys, runpy; sys.argv = ['download', '--help']\n"
        "try: runpy.run_module('boneage_pl.download', run_name='__main__')\n"
        "finally: assert 'torch' not in sys.modules and 'pandas' not in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "python -m boneage_pl.download" in shown.stdout
    assert "$BONEAGE_DATA" in shown.stdout
    assert not list(tmp_path.iterdir())
