"""The command that prepares the images: decodes, resizes and crops each of them once."""

import logging

from hydra.utils import instantiate
from omegaconf import DictConfig

from boneage_pl.cli.entry import CONTINUES, start
from boneage_pl.cli.numbers import check_data_numbers
from boneage_pl.data.depth import told
from boneage_pl.data.frame import Frame
from boneage_pl.data.place import Place
from boneage_pl.data.preparation import prepare_images
from boneage_pl.data.problems import add_bad_images, check_choice
from boneage_pl.data.source import draw, store_folder
from boneage_pl.data.table import examine_table

log = logging.getLogger(__name__)


def prepare(config: DictConfig) -> None:
    """Prepare every image of `data.root`, or bring what is prepared up to date, and check every byte of it.

    Raises:
        BoneageError: see `examine_table` and `prepare_images`; or rows and images that cannot be used, all of
            them told, after the others were prepared.
    """
    check_data_numbers(config)
    place = Place.configured(config.data)
    root = place.root
    if config.data.get("generate"):
        draw(instantiate(config.data.generate), root)
    folder = store_folder(config.data.store, root)
    frame = Frame.configured(config.data)
    table, problems = examine_table(place)
    store = prepare_images(table, root, folder, frame, config.data.prepare_workers, verify=True)
    mib = store.path.stat().st_size / 2**20
    log.info("%s: %d images of %d px, %.0f MiB, whole", store.path, len(store.rows), frame.side, mib)
    add_bad_images(problems, table, store.images.bad, store.images.contents)
    problems.note(told(store.images.depths.values(), store.images.levels))
    problems.tell(log)
    if problems and check_choice(config.data.on_bad_image) == "error":
        raise problems.error(most=None)
    if problems:
        log.warning("%d rows or images cannot be used:\n%s", len(problems), problems.told(most=None))


if __name__ == "__main__":
    start(prepare, "prepare", CONTINUES)
