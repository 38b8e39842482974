"""The command that prepares the images: decodes, resizes and crops each of them once."""

import logging

from hydra.utils import instantiate
from omegaconf import DictConfig

from boneage_pl.cli.checks import check_data_numbers
from boneage_pl.cli.entrypoint import INTERRUPTED_MESSAGE, run_command
from boneage_pl.data.cache.build import build_cache
from boneage_pl.data.images.bit_depth import describe_bit_depths
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.phantom import generate_if_missing
from boneage_pl.data.tables.load import load_table
from boneage_pl.data.tables.spec import DatasetSpec, resolve_cache_dir
from boneage_pl.data.tables.validate import check_on_invalid, drop_invalid_images

log = logging.getLogger(__name__)


def prepare(config: DictConfig) -> None:
    """Build or update the image cache of `data.root`, and verify every checksum.

    Raises:
        BoneAgeError: see `load_table` and `build_cache`; or rows and images that cannot be used,
            reported together after the others are cached.
    """
    check_data_numbers(config)
    place = DatasetSpec.from_config(config.data)
    root = place.root
    if config.data.get("phantom"):
        generate_if_missing(instantiate(config.data.phantom), root)
    folder = resolve_cache_dir(config.data.cache_dir, root)
    frame = ResizeSpec.from_config(config.data)
    table, problems = load_table(place)
    store = build_cache(table, root, folder, frame, config.data.cache_workers, verify=True)
    mib = store.path.stat().st_size / 2**20
    log.info("%s: %d images of %d px, %.0f MiB, whole", store.path, len(store.rows), frame.size, mib)
    drop_invalid_images(problems, table, store.images.errors, store.images.pixel_sha256)
    if note := describe_bit_depths(store.images.depths.values(), store.images.bit_depths):
        log.info("%s", note)
    if problems and check_on_invalid(config.data.on_invalid) == "raise":
        raise problems.error(most=None)
    if problems:
        log.warning("%d rows or images cannot be used:\n%s", len(problems), problems.summary(most=None))


if __name__ == "__main__":
    run_command(prepare, "prepare", INTERRUPTED_MESSAGE)
