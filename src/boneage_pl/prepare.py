"""Build the image cache: decode, resize and crop every image once."""

import logging

from hydra.utils import instantiate
from omegaconf import DictConfig

from boneage_pl.cli.entrypoint import INTERRUPTED_MESSAGE, run_command
from boneage_pl.data.cache.build import open_dataset
from boneage_pl.data.images.bit_depth import describe_bit_depths
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.phantom import generate_if_missing
from boneage_pl.data.tables.spec import DatasetSpec, resolve_cache_dir

log = logging.getLogger(__name__)


def prepare(config: DictConfig) -> None:
    """Build or update the image cache of `data.root` and verify every image in it.

    Raises:
        BoneAgeError: see `load_table` and `build_cache`; or unusable rows and images, reported together
            after the others are cached.
    """
    data = config.data
    spec, frame = DatasetSpec.from_config(data), ResizeSpec.from_config(data)
    if data.get("phantom"):
        generate_if_missing(instantiate(data.phantom), spec.root)
    index = open_dataset(spec)
    folder = resolve_cache_dir(data.cache_dir, spec.root)
    cache = index.build_cache(folder, frame, data.cache_workers, verify=True)
    images = cache.images
    count, mib = len(images.pixel_sha256), cache.path.stat().st_size / 2**20
    log.info("%s: %d images of %d px, %.0f MiB, intact", cache.path, count, frame.size, mib)
    if note := describe_bit_depths((f.bit_depth for f in images.files.values()), images.bit_depths):
        log.info("%s", note)
    index.usable_rows(images, data.on_invalid, limit=None)


if __name__ == "__main__":
    run_command(prepare, "prepare", INTERRUPTED_MESSAGE)
