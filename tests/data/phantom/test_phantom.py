import dataclasses
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from boneage_pl.data.phantom import (
    dataset,
    generate_if_missing,
    phantom_table,
    render,
    render_radiograph,
    write_phantom,
)
from boneage_pl.data.phantom.acquisition import BUILD, rng_for, sample_acquisition
from boneage_pl.data.phantom.bones import CORTEX
from boneage_pl.data.phantom.skeleton import HandVariation, Skeleton, build_skeleton
from boneage_pl.data.tables.load import read_table
from boneage_pl.errors import BoneAgeError


def pixels(age: float, male: bool = True, index: int = 0, seed: int = 0, size: int = 128) -> np.ndarray:
    return np.asarray(render_radiograph(age, male, seed=seed, index=index, size=size))


def carpal_area(age: float, male: bool) -> float:
    """Return the area of the carpal bones and the sesamoid (mm²), for an average build."""
    skeleton = build_skeleton(age, male, HandVariation(rng_for(0, 0, BUILD)))
    outlines = [s.points for s in skeleton.shapes if s.layer > 0][::2]  # outline and inside of each bone
    return sum(
        abs(np.sum(p[:, 0] * np.roll(p[:, 1], 1) - p[:, 1] * np.roll(p[:, 0], 1))) / 2 for p in outlines
    )


def centers(age: float, male: bool) -> int:
    skeleton = build_skeleton(age, male, HandVariation(rng_for(0, 0, BUILD)))
    # Each bone has one outline; a growth plate's scar is as bright, but a bar of four corners.
    return sum(s.level in (CORTEX, CORTEX - 15) and len(s.points) > 4 for s in skeleton.shapes)


def test_render_gives_gray_square() -> None:
    image = render_radiograph(100, True, seed=0, index=0, size=96)
    assert (image.mode, image.size) == ("L", (96, 96))
    assert 20 < np.asarray(image).mean() < 140
    assert np.asarray(image).max() > 180


def test_render_depends_on_arguments_alone() -> None:
    first = pixels(90, index=7)
    pixels(12, male=False, index=3)
    assert np.array_equal(first, pixels(90, index=7))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert np.array_equal(first, pool.submit(pixels, 90, index=7).result())
    for other in (pixels(90, index=8), pixels(90, index=7, seed=1), pixels(120, index=7)):
        assert not np.array_equal(first, other)


def test_render_changes_only_bones_with_age_and_sex(monkeypatch: pytest.MonkeyPatch) -> None:
    who = [(3, True), (220, True), (3, False), (150, False)]
    for index in range(8):
        shown = [pixels(*person, index=index) for person in who]
        # The corners hold background, noise and often the marker, and lie outside every hand.
        for corner in (np.s_[-12:, :16], np.s_[:16, :16], np.s_[:16, -12:]):
            assert all(np.array_equal(shown[0][corner], other[corner]) for other in shown[1:])
    monkeypatch.setattr(render, "build_skeleton", without_bones)
    for index in range(8):
        hidden = [pixels(*person, index=index) for person in who]
        assert all(np.array_equal(hidden[0], other) for other in hidden[1:])


def without_bones(age: float, male: bool, build: HandVariation) -> Skeleton:
    return dataclasses.replace(build_skeleton(age, male, build), shapes=[])


def test_acquisition_follows_from_seed_and_index() -> None:
    assert sample_acquisition(3, 5) == sample_acquisition(3, 5)
    drawn = pd.DataFrame([dataclasses.asdict(sample_acquisition(0, i)) for i in range(400)])
    for name in ("zoom", "tilt", "flesh", "density", "exposure", "gamma", "noise"):
        assert drawn[name].nunique() > 350
        by_group = drawn[name].groupby(drawn.index % 20).mean()
        assert by_group.std() < 3 * drawn[name].std() / 20**0.5  # the groups differ by chance alone


@pytest.mark.parametrize("male", [True, False])
def test_bones_appear_and_carpus_grows_with_age(male: bool) -> None:
    ages = range(1, 229, 3)
    areas, counts = ([of(age, male) for age in ages] for of in (carpal_area, centers))
    assert all(np.diff(areas) >= 0)
    assert all(np.diff(counts) >= 0)
    assert areas[0] < 15 < 1200 < areas[-1]
    # 19 shafts and 2 bones of the forearm at birth; their 21 epiphyses, 8 carpals and a sesamoid at the end.
    assert counts[0] == 21
    assert counts[-1] >= 51


def test_girls_are_ahead_of_boys() -> None:
    for age in range(12, 150, 6):
        assert carpal_area(age, False) > carpal_area(age, True)
        assert centers(age, False) >= centers(age, True)


@pytest.mark.parametrize("count", [20, 60, 200])
def test_table_fills_twenty_groups_equally(count: int) -> None:
    table = phantom_table(count, seed=1)
    bins = pd.cut(table["boneage"], 10)
    assert set(table.groupby([bins, "male"], observed=False).size()) == {count // 20}
    assert (table["boneage"].min(), table["boneage"].max()) == (1, 228)
    assert table["id"].tolist() == list(range(1, count + 1))


def test_longer_table_starts_with_shorter() -> None:
    assert phantom_table(100, 4)["boneage"].tolist()[:37] == phantom_table(37, 4)["boneage"].tolist()
    assert phantom_table(100, 4)["boneage"].tolist() != phantom_table(100, 5)["boneage"].tolist()
    long = phantom_table(4000, 0)["boneage"]
    assert set(long) == set(range(1, 229))


def files(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_written_phantom_loads_like_real_data(tmp_path: Path) -> None:
    root = tmp_path / "a" / "phantom"
    write_phantom(root, count=4, seed=0, size=64)
    table = read_table(root)
    assert table["bone_age"].tolist() == phantom_table(4, 0)["boneage"].tolist()
    assert table["male"].tolist() == phantom_table(4, 0)["male"].tolist()
    with Image.open(table["path"][2]) as image:
        drawn = pixels(table["bone_age"][2], table["male"][2], index=2, size=64)
        assert np.array_equal(np.asarray(image), drawn)
    assert (root / "boneage-training-dataset.csv").read_text().splitlines()[0] == "id,boneage,male"
    expected = {"count": 4, "seed": 0, "size": 64, "skeleton_age": None, "version": dataset.VERSION}
    assert json.loads((root / "phantom.json").read_text()) == expected


def test_second_write_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_phantom(tmp_path, count=3, seed=0, size=64)
    monkeypatch.setattr(dataset, "atomic_write", lambda *_, **__: pytest.fail("wrote again"))
    write_phantom(tmp_path, count=3, seed=0, size=64)


def test_interrupted_write_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, halted = tmp_path / "whole", tmp_path / "halted"
    write_phantom(whole, count=5, seed=0, size=64)
    drawn: list[int] = []

    def stop_at_third(*args: object, index: int, **rest: object) -> Image.Image:
        drawn.append(index)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return render_radiograph(*args, index=index, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr(dataset, "render_radiograph", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        write_phantom(halted, count=5, seed=0, size=64)
    assert not list(halted.rglob("*.csv"))
    write_phantom(halted, count=5, seed=0, size=64)
    assert drawn == [0, 1, 2, 2, 3, 4]
    assert files(halted) == files(whole)


def test_shorter_phantom_is_extended_and_lost_image_redrawn(tmp_path: Path) -> None:
    write_phantom(tmp_path / "long", count=6, seed=0, size=64)
    write_phantom(tmp_path / "grown", count=4, seed=0, size=64)
    (tmp_path / "grown" / "boneage-training-dataset" / "2.png").unlink()
    write_phantom(tmp_path / "grown", count=6, seed=0, size=64)
    assert files(tmp_path / "grown") == files(tmp_path / "long")


@pytest.mark.parametrize("other", [{"seed": 1}, {"size": 65}, {"skeleton_age": 90.0}, {"count": 2}])
def test_other_parameters_are_refused(tmp_path: Path, other: dict[str, float]) -> None:
    options = {"count": 3, "seed": 0, "size": 64}
    write_phantom(tmp_path, **options)
    before = files(tmp_path)
    with pytest.raises(BoneAgeError, match="another phantom"):
        write_phantom(tmp_path, **(options | other))
    assert files(tmp_path) == before


def test_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "boneage-training-dataset.csv").write_text("id,boneage,male\n1,10,True\n")
    before = files(tmp_path)
    with pytest.raises(BoneAgeError, match="not a phantom"):
        write_phantom(tmp_path, count=3, seed=0, size=64)
    assert files(tmp_path) == before
    with pytest.raises(BoneAgeError, match="cannot be written"):
        write_phantom(tmp_path / "boneage-training-dataset.csv", count=3, seed=0, size=64)


def test_skeleton_age_control_ignores_label(tmp_path: Path) -> None:
    write_phantom(tmp_path, count=4, seed=0, size=64, skeleton_age=90)
    table = read_table(tmp_path)
    assert table["bone_age"].nunique() > 1
    for i, row in enumerate(table.itertuples()):
        with Image.open(str(row.path)) as image:
            assert np.array_equal(np.asarray(image), pixels(90, row.male, index=i, size=64))


def test_many_images_use_several_processes(tmp_path: Path) -> None:
    write_phantom(tmp_path / "alone", count=120, seed=0, size=32, workers=1)
    write_phantom(tmp_path / "together", count=120, seed=0, size=32, workers=2)
    assert files(tmp_path / "alone") == files(tmp_path / "together")


def write_small(root: Path) -> None:
    generate_if_missing(
        partial(write_phantom, count=60, seed=0, size=32, workers=1), root
    )  # as all commands do


def test_concurrent_writes_agree(tmp_path: Path) -> None:
    """One process draws while the other waits, since their temporary files have the same names."""
    write_small(tmp_path / "alone")
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(write_small, [tmp_path / "shared"] * 2))
    assert files(tmp_path / "shared") == files(tmp_path / "alone")
