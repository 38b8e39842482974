"""Fetch the RSNA 2017 radiographs, unpack them and count what must be there."""

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urljoin

from filelock import FileLock, Timeout
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from boneage_pl.cli.checks import check_number
from boneage_pl.cli.entrypoint import INTERRUPTED_MESSAGE, run_command
from boneage_pl.data.tables.spec import data_root
from boneage_pl.errors import BoneAgeError
from boneage_pl.fetch.extract import extract, find_corruption
from boneage_pl.fetch.http import (
    RetryPolicy,
    check_url,
    download_file,
    partial_path,
    print_line,
    remote_size,
    size_on_disk,
)
from boneage_pl.fetch.rsna import RadiographSet
from boneage_pl.utils.files import check_free_space, translate_disk_errors

_TERMS = """The RSNA's bone-age radiographs come with the RSNA's terms of use. They are about non-commercial
research and education, and about citing where the radiographs come from:

  Halabi SS et al. The RSNA Pediatric Bone Age Machine Learning Challenge.
  Radiology 2019;290:498-503. doi:10.1148/radiol.2018180736

What counts is the RSNA's own text: see the RSNA Pediatric Bone Age Challenge (2017) page on rsna.org.
Nothing has been fetched. Once you have read the terms and accept them, go on with

  {command}
"""
_NUMBERS = {  # the lowest that makes sense
    "training.count": 0,
    "validation.count": 0,
    "timeout": 0.001,
    "retries": 0,
    "retry_wait": 0,
    "unpack_factor": 0,
    "unpack_limit": 0,
}


def download(config: DictConfig) -> None:
    """Fetch and unpack what is missing of the configured sets, then count them.

    Raises:
        BoneAgeError: a server, an archive or the disk refuses, or something is missing at the end.
        SystemExit: 2 where the terms are not accepted.
    """
    if config.accept_terms is not True:
        print(_TERMS.format(command=_command()))
        sys.exit(2)
    _check_numbers(config)
    sets = _radiograph_sets(config)
    pending = [(of, url) for of in sets for url in of.pending()]
    _check_free_space(pending, config)
    for of, url in pending:
        with _exclusive(of.root):
            _download_and_extract(of, url, config)
    for of in sets:
        of.check()
        print(f"{of.name}: {of.count:,} images and as many rows of their table in {of.root}")
    print("Done." if pending else "Everything was there already; nothing was fetched.")


def _check_numbers(config: DictConfig) -> None:
    for name, lowest in _NUMBERS.items():
        check_number(name, OmegaConf.select(config, name, default=lowest), lowest, whole=False)


def _radiograph_sets(config: DictConfig) -> list[RadiographSet]:
    """Return the configured sets, their folders and addresses checked."""
    if "phantom" in config.data:
        raise BoneAgeError("This data set is drawn, not downloaded. Leave data= out, or give data=rsna.")
    root = data_root(config.data.root)
    sets = [_radiograph_set("training", config, root)]
    if config.validation is not None:
        folder = config.validation.root
        beside = data_root(folder) if folder else _sibling(root)
        sets.append(_radiograph_set("validation", config, beside))
        _check_distinct(root.resolve(), beside.resolve())
    return sets


def _sibling(root: Path) -> Path:
    named = root.resolve() if root.name in ("", "..") else root
    return named.parent / f"{named.name}_validation"


def _radiograph_set(name: str, config: DictConfig, root: Path) -> RadiographSet:
    source = str(config.source).rstrip("/") + "/"
    urls = [urljoin(source, str(address)) for address in config[name].archives.values()]
    made = RadiographSet(name, root, config[name].count, urls)
    for url in urls:
        check_url(url)
    if len({made.archive(url) for url in urls} - {root}) != len(urls):
        listed = "\n".join(urls)
        raise BoneAgeError(f"{name}.archives: each must end in a file name of its own, unlike\n{listed}")
    return made


def _check_distinct(training: Path, validation: Path) -> None:
    if training.is_relative_to(validation) or validation.is_relative_to(training):
        raise BoneAgeError(
            f"data.root={training} and validation.root={validation}: neither may lie inside the other,\n"
            "because whatever lies under a set's folder may be taken for a part of it."
        )


def _check_free_space(pending: list[tuple[RadiographSet, str]], config: DictConfig) -> None:
    """Refuse before the first byte what the disk could not hold: what comes, and what it unpacks to."""
    needs = []
    for of, url in pending:
        archive = of.archive(url)
        here = archive.exists()
        size = size_on_disk(archive) if here else remote_size(url, config.timeout) or 0
        coming = 0 if here else max(size - size_on_disk(partial_path(archive)), 0)
        needs.append((of.root, coming + int(size * config.unpack_factor)))
    check_free_space(needs)


@contextmanager
def _exclusive(root: Path) -> Iterator[None]:
    """Keep every other download out of `root`."""
    with translate_disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / ".download.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BoneAgeError(
                f"Another download into {root} is running; see what it brings first."
            ) from None
    try:
        yield
    finally:
        lock.release()


def _download_and_extract(of: RadiographSet, url: str, config: DictConfig) -> None:
    """Fetch one archive, unpack it, remember that, and remove it."""
    archive = of.archive(url)
    if not archive.exists():
        download_file(url, archive, RetryPolicy(config.timeout, config.retries, config.retry_wait))
    print_line(f"unpacking {archive.name} into {of.root}")
    size = size_on_disk(archive)
    files = extract(archive, of.root, config.unpack_limit)
    print_line(f"unpacked {archive.name}, {files:,} files")
    of.mark_downloaded(url, size, files)
    with translate_disk_errors(archive):
        find_corruption(archive).unlink(missing_ok=True)
        if not config.keep_archives:
            archive.unlink()


def _command() -> str:
    """Return the command as it was typed, with the terms accepted."""
    typed = [o for o in HydraConfig.get().overrides.task if not o.lstrip("+").startswith("accept_terms=")]
    return shlex.join(["python", "-m", "boneage_pl.download", *typed, "accept_terms=true"])


if __name__ == "__main__":
    run_command(download, "download", INTERRUPTED_MESSAGE)
