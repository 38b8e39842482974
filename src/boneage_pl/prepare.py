"""The command that prepares the images: decodes, resizes and crops each of them once."""

import logging

from hydra.utils import instantiate
from omegaconf import DictConfig

from boneage_pl.data.preparation import prepare_images
from boneage_pl.data.source import data_root, draw, store_folder
from boneage_pl.data.table import read_table
from boneage_pl.entry import CONTINUES, start
from boneage_pl.errors import BoneageError
from boneage_pl.numbers import check_data_numbers

log = logging.getLogger(__name__)


def prepare(config: DictConfig) -> None:
    """Prepare every image of `data.root`, or bring what is prepared up to date, and check every byte of it.

    Raises:
        BoneageError: see `read_table` and `prepare_images`; or images that cannot be read, after all others
            were prepared.
    """
    check_data_numbers(config)
    root = data_root(config.data.root)
    if config.data.get("generate"):
        draw(instantiate(config.data.generate), root)
    folder, size = store_folder(config.data.store, root), config.data.image_size
    store = prepare_images(read_table(root), root, folder, size, config.data.prepare_workers, verify=True)
    mib = store.path.stat().st_size / 2**20
    log.info("%s: %d images of %d px, %.0f MiB, whole", store.path, len(store.rows), size, mib)
    if store.unreadable:
        listed = "\n".join(f"  {why}" for why in store.unreadable.values())
        raise BoneageError(
            f"{len(store.unreadable)} images could not be read and are left out:\n{listed}\n"
            "Fetch them again, or take their rows out of the table, and run the same command."
        )


if __name__ == "__main__":
    start(prepare, "prepare", CONTINUES)
