"""Download, extract and count the RSNA 2017 radiographs."""

import hashlib
import shlex
import sys
from pathlib import Path
from urllib.parse import urljoin

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from urllib3 import Retry

from boneage_pl.cli.entrypoint import INTERRUPTED_MESSAGE, run_command
from boneage_pl.data.tables.spec import data_root
from boneage_pl.errors import BoneAgeError
from boneage_pl.fetch.extract import damaged_path, extract, set_aside
from boneage_pl.fetch.http import download_file
from boneage_pl.fetch.rsna import RadiographSet
from boneage_pl.utils.files import translate_disk_errors
from boneage_pl.utils.processes import file_lock

_TERMS = """The RSNA's bone-age radiographs come with terms of use: non-commercial research and education,
with citation of the source:

  Halabi SS et al. The RSNA Pediatric Bone Age Machine Learning Challenge.
  Radiology 2019;290:498-503. doi:10.1148/radiol.2018180736

The full terms are on the page of the RSNA Pediatric Bone Age Challenge (2017) on rsna.org. Nothing has been
downloaded. If you accept the terms, run

  {command}
"""


def download(config: DictConfig) -> None:
    """Download and extract missing archives of the configured sets, then count the images.

    A second process that downloads into the same folder waits for the first.

    Raises:
        BoneAgeError: an error of the server, an archive or the disk, or missing images at the end.
        SystemExit: 2 if the terms are not accepted.
    """
    if not config.accept_terms:
        print(_TERMS.format(command=_command()))
        sys.exit(2)
    for radiographs in _radiograph_sets(config):
        with translate_disk_errors(radiographs.root):
            radiographs.root.mkdir(parents=True, exist_ok=True)
            lock = radiographs.root / ".download.lock"
            lock.touch()
        with file_lock(lock, f"downloads into {radiographs.root}"):
            for url in radiographs.pending():
                _download_and_extract(radiographs, url, config)
            radiographs.check()
        print(f"{radiographs.name}: {radiographs.count:,} images and rows in {radiographs.root}")


def _radiograph_sets(config: DictConfig) -> list[RadiographSet]:
    """Return the configured sets with checked folders and addresses."""
    if config.data.get("phantom"):
        raise BoneAgeError("This data set is generated, not downloaded. Leave data= out, or pass data=rsna.")
    root = data_root(config.data.root)
    sets = [_radiograph_set("training", config, root)]
    if config.validation is not None:
        resolved = root.resolve() if root.name in ("", "..") else root
        default = resolved.parent / f"{resolved.name}_validation"
        other = data_root(config.validation.root) if config.validation.root else default
        sets.append(_radiograph_set("validation", config, other))
        one, two = root.resolve(), other.resolve()
        if one.is_relative_to(two) or two.is_relative_to(one):  # a folder's set includes its subfolders
            raise BoneAgeError(f"data.root={root} and validation.root={other}: one lies inside the other.")
    return sets


def _radiograph_set(name: str, config: DictConfig, root: Path) -> RadiographSet:
    source, options = str(config.source).rstrip("/") + "/", config[name]
    archives = {urljoin(source, str(a)): options.sha256.get(key) for key, a in options.archives.items()}
    return RadiographSet(name, root, options.count, archives)


def _download_and_extract(radiographs: RadiographSet, url: str, config: DictConfig) -> None:
    """Download an archive unless it exists, extract and record it, and remove it."""
    archive, root, etag = radiographs.archive(url), radiographs.root, None
    if not archive.exists():
        policy = Retry(config.retries, backoff_factor=config.retry_wait, backoff_max=60)
        etag = download_file(url, archive, config.timeout, policy, config.unpack_factor)
    try:
        with archive.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BoneAgeError(
            f"{archive} cannot be read: {error.strerror}. Check the disk; try again."
        ) from error
    with translate_disk_errors(archive):
        if sha256 != (radiographs.archives[url] or sha256).lower():
            raise set_aside(archive, f"its SHA-256 is {sha256}, not {radiographs.archives[url]}")
        receipt = {"url": url, "etag": etag, "bytes": archive.stat().st_size, "sha256": sha256}
        radiographs.record(archive.name, receipt | {"files": extract(archive, root, config.unpack_limit)})
        damaged_path(archive).unlink(missing_ok=True)
        if not config.keep_archives:
            archive.unlink()


def _command() -> str:
    """Return the typed command with accept_terms=true."""
    typed = [o for o in HydraConfig.get().overrides.task if not o.lstrip("+").startswith("accept_terms=")]
    return shlex.join(["python", "-m", "boneage_pl.download", *typed, "accept_terms=true"])


if __name__ == "__main__":
    run_command(download, "download", INTERRUPTED_MESSAGE)
