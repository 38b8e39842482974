import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from omegaconf import OmegaConf
from PIL import Image

from boneage_pl.data import dataloaders
from boneage_pl.data.datamodule import BoneAgeDataModule
from boneage_pl.data.sampling import balanced, sqrt
from boneage_pl.data.transforms.compose import Compose
from boneage_pl.data.transforms.geometric import RandomHorizontalFlip
from boneage_pl.errors import BoneAgeError
from boneage_pl.training.build import check_split_options
from tests.conftest import balanced_table, write_rsna

FOLDER = "boneage-training-dataset"
BALANCED = {"_target_": "boneage_pl.data.sampling.balanced"}


def data_of(root: Path, **options: Any) -> BoneAgeDataModule:
    defaults = {"image_size": 107, "samples_per_group": 4, "batch_size": 8, "num_workers": 0}
    data = BoneAgeDataModule(str(root), **{**defaults, **options})
    data.prepare_data()
    data.setup()
    return data


def epoch_of(data: BoneAgeDataModule, epoch: int) -> dict[int, torch.Tensor]:
    """Return the transformed training images by row, in the order of the loader."""
    loader = data.train_dataloader()
    loader.sampler.set_epoch(epoch)
    flips = Compose([RandomHorizontalFlip()])
    return {
        int(row): image
        for batch in loader
        for row, image in zip(batch["row"], flips(batch["image"], batch["key"]), strict=True)
    }


def test_batches_stay_uint8_until_device(rsna: Path):
    data = data_of(rsna)
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (8, 1, 107, 107)
    assert batch["image"].dtype == torch.uint8
    assert batch["male"].dtype == batch["bone_age"].dtype == torch.float32
    validation = pd.concat(
        [pd.DataFrame({k: b[k].numpy() for k in ("row", "male", "bone_age")}) for b in data.val_dataloader()]
    )
    assert validation["row"].tolist() == list(range(20))
    rows = data.validation_rows
    assert validation["bone_age"].tolist() == rows["bone_age"].tolist()
    assert (validation["male"] == 1).tolist() == rows["male"].tolist()
    keys = {side: torch.cat([b["key"] for b in loader]) for side, loader in
            (("train", data.train_dataloader()), ("validation", data.val_dataloader()))}  # fmt: skip
    assert len({*keys["train"].tolist(), *keys["validation"].tolist()}) == 60 + 20


@pytest.mark.parametrize(
    "options", [{"num_workers": 2}, {"cache": False}, {"cache": False, "num_workers": 2}]
)
def test_order_and_pixels_do_not_depend_on_workers_or_cache(rsna: Path, options: dict[str, Any]):
    first = epoch_of(data_of(rsna), epoch=3)
    torch.manual_seed(12345)
    again = epoch_of(data_of(rsna, **options), epoch=3)
    assert list(first) == list(again)
    assert all(torch.equal(first[row], again[row]) for row in first)


def test_order_and_flips_depend_on_seed_epoch_and_sample(rsna: Path, tmp_path: Path):
    first = epoch_of(data_of(rsna), epoch=3)
    later = epoch_of(data_of(rsna), epoch=4)
    drawn = data_of(rsna)
    drawn.split.to_csv(tmp_path / "split.csv", index=False)
    other = epoch_of(data_of(rsna, seed=1, split_file=str(tmp_path / "split.csv")), epoch=3)
    assert list(first) != list(later)
    assert list(first) != list(other)
    assert {torch.equal(first[row], other[row]) for row in first} == {True, False}
    flipped = [not torch.equal(first[row], later[row]) for row in first]
    for row, flip in zip(first, flipped, strict=True):
        assert torch.equal(later[row], first[row].flip(2) if flip else first[row])
    # of 60; half of the samples are flipped differently in the next epoch
    assert 10 < sum(flipped) < 50


def test_file_hashes_do_not_depend_on_cache(rsna: Path):
    assert data_of(rsna).record["file_sha256"] == data_of(rsna, cache=False).record["file_sha256"]


def test_unreadable_image_is_named_before_training(tmp_path: Path):
    write_rsna(tmp_path, balanced_table(4))
    (tmp_path / "boneage-training-dataset" / "7.png").write_bytes(b"half an im")
    with pytest.raises(BoneAgeError, match=r"1 × image that is none of PNG, .*: .*7\.png\n.*=skip"):
        data_of(tmp_path)


@pytest.mark.parametrize("prepare", [True, False])
def test_invalid_rows_and_images_raise_together_or_are_skipped(tmp_path: Path, prepare: bool):
    """All kinds of issues at once; the split of the rest does not depend on how images are read."""
    write_rsna(tmp_path, balanced_table(5))
    images = tmp_path / "boneage-training-dataset"
    (images / "7.png").write_bytes(b"")
    (images / "8.png").write_bytes((images / "9.png").read_bytes()[:900])
    (images / "11.png").unlink()
    Image.new("L", (130, 120), 17).save(images / "12.png")
    Image.new("1", (9000, 9000)).save(images / "13.png")
    csv = tmp_path / "boneage-training-dataset.csv"
    csv.write_text(csv.read_text() + "../none,50,True\n/etc/passwd,50,True\n")
    with pytest.raises(BoneAgeError) as error:
        data_of(tmp_path, cache=prepare)
    for message in (
        "7 unusable rows or images",
        "3 × row without its image under",
        f"1 × image that is an empty file: {images / '7.png'}",
        f"1 × image that is cut short: {images / '8.png'}",
        f"1 × image that is all one gray value: {images / '12.png'}",
        f"1 × image that is more than 64 megapixels, too large for a radiograph: {images / '13.png'}",
    ):
        assert message in str(error.value)
    data = data_of(tmp_path, cache=prepare, on_invalid="skip")
    assert set(data.skipped["id"]) == {"7", "8", "11", "12", "13", "none", "passwd"}
    assert len(data.table) == 95
    assert not set(data.split["id"]) & set(data.skipped["id"])
    other = data_of(tmp_path, cache=not prepare, on_invalid="skip")
    assert data.split.equals(other.split)
    assert data.record == other.record


def test_checkpoint_split_is_not_thinned(tmp_path: Path):
    write_rsna(tmp_path, balanced_table(4))
    record = data_of(tmp_path).record
    (tmp_path / "boneage-training-dataset" / "7.png").write_bytes(b"")
    with pytest.raises(BoneAgeError, match="1 images of the checkpoint's split are unusable"):
        data_of(tmp_path, origin=record, on_invalid="skip")


def test_missing_cache_is_an_error(tmp_path: Path):
    write_rsna(tmp_path, balanced_table(4))
    with pytest.raises(BoneAgeError, match="No current image cache"):
        BoneAgeDataModule(str(tmp_path), 107, samples_per_group=4).setup()


def test_on_device_batches_are_equal(rsna: Path):
    cpu = torch.device("cpu")
    for side in ("train_dataloader", "val_dataloader"):
        pairs = zip(
            *(_moved(data_of(rsna, on_device=there), side, cpu) for there in (False, True)), strict=True
        )
        for usual, resident in pairs:
            assert usual.keys() == resident.keys()
            assert all(torch.equal(usual[key], resident[key]) for key in usual)
            assert usual["image"].dtype == resident["image"].dtype == torch.uint8


def _moved(data: BoneAgeDataModule, side: str, device: torch.device) -> list[Any]:
    return [data.transfer_batch_to_device(batch, device, 0) for batch in getattr(data, side)()]


@pytest.mark.parametrize(("free", "there"), [(10**9, True), (10**5, False)])
def test_on_device_needs_free_gpu_memory(rsna: Path, monkeypatch: pytest.MonkeyPatch, free: int, there: bool):
    """Tests the decision without CUDA: the images are put into the CPU's memory."""
    taken: list[str] = []
    monkeypatch.setattr(dataloaders, "free_memory", lambda _: free)
    monkeypatch.setattr(dataloaders, "DeviceImages", lambda *args: taken.append(str(args[-1])))
    gpu = SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda", 0)))
    for on_device in (None, False, True):
        data = data_of(rsna, on_device=on_device)
        ids = list(data.split["id"].unique())
        if on_device and not there:
            with pytest.raises(BoneAgeError, match="on_device=true: the images need"):
                data.loaders.device_images(ids, data.read, gpu)  # type: ignore[arg-type]
        else:
            data.loaders.device_images(ids, data.read, gpu)  # type: ignore[arg-type]
    assert taken == (["cuda:0", "cuda:0"] if there else [])


@pytest.mark.parametrize(("processes", "parts"), [(1, 1), (2, 1), (1, 4), (2, 2)])
@pytest.mark.parametrize("rest", [1, 13])
def test_steps_match_training_however_shared(rsna: Path, processes: int, parts: int, rest: int):
    """61 or 73 rows in batches of 20: a last batch of one is dropped."""
    data = data_of(rsna, batch_size=20)
    data.split = pd.concat([data.split, data.split[data.split["subset"] == "train"].head(rest)])
    fit_loop = SimpleNamespace(epoch_progress=SimpleNamespace(current=SimpleNamespace(processed=0)))
    trainer = SimpleNamespace(
        strategy=SimpleNamespace(root_device=torch.device("cpu")),
        world_size=processes,
        num_devices=processes,
        global_rank=processes - 1,
        accumulate_grad_batches=parts,
        fit_loop=fit_loop,
    )
    data.trainer = trainer  # type: ignore[assignment]
    served = len(list(data.train_dataloader()))
    assert data.steps(parts, None, processes) == served / parts
    assert data.steps(parts, None, processes) == (3 if rest == 1 else 4)


def test_rows_are_drawn_anew_each_epoch(rsna: Path):
    data = data_of(rsna, split_protocol="natural", sampler=sqrt, samples_per_group=1000)
    train = data.split[data.split["subset"] == "train"]
    assert train["id"].is_unique
    data = data_of(rsna, split_protocol="natural", sampler=balanced, samples_per_group=4, val_fraction=0.5)
    assert data.epoch_rows == 2 * 20
    loader = data.train_dataloader()
    seen = []
    for epoch in (0, 1, 2, 0):
        loader.sampler.set_epoch(epoch)
        seen.append(torch.cat([batch["row"] for batch in loader]).tolist())
        assert len(seen[-1]) == 40
        assert data._subset("train")["group"].to_numpy()[seen[-1]].tolist().count(3) == 2
    assert seen[0] == seen[3] != seen[1]
    assert set(seen[0]) | set(seen[1]) | set(seen[2]) == set(range(len(data._subset("train"))))
    again = data_of(rsna, sampler=sqrt, origin=data.record)
    assert (again.draws, again.split.equals(data.split)) == (data.draws, True)


@pytest.mark.parametrize(
    ("typed", "refused"),
    [
        ("data.fold=2", True),
        ("data.split_protocol=natural", True),
        ("+data.samples_per_group=5", True),
        ("data.samples_per_group=4", False),  # in the checkpoint's split
        ("sampler=sqrt", True),
        ("data.batch_size=4", False),
    ],
)
def test_split_option_that_checkpoint_overrules_is_refused(rsna: Path, typed: str, refused: bool):
    start = SimpleNamespace(split=data_of(rsna).record, config={"sampler": BALANCED})
    name, _, value = typed.lstrip("+").partition("=")
    defaults = {"data": {"samples_per_group": 4, "split_from": "checkpoint", "fold": 1}, "sampler": BALANCED}
    config = OmegaConf.create(defaults)
    OmegaConf.update(config, name, {"_target_": "x"} if name == "sampler" else yaml.safe_load(value))
    if not refused:
        check_split_options(config, start, [typed])  # type: ignore[arg-type]
        return
    with pytest.raises(BoneAgeError, match=f"^{name}={value}: ckpt= uses the checkpoint's split"):
        check_split_options(config, start, [typed])  # type: ignore[arg-type]
    config.data.split_from = "new"
    check_split_options(config, start, [typed])  # type: ignore[arg-type]


def test_split_file_is_used_exactly(rsna: Path, tmp_path: Path):
    drawn = data_of(rsna, seed=5).split
    drawn.sample(frac=1, random_state=0).to_csv(tmp_path / "split.csv", index=False)
    read = data_of(rsna, split_file=str(tmp_path / "split.csv")).split
    columns = list(drawn.columns)
    assert sorted(map(tuple, read[columns].to_numpy())) == sorted(map(tuple, drawn.to_numpy()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda split: split.drop(columns="subset"), "lacks subset"),
        (lambda split: split.assign(subset="test"), "subset must be train or validation"),
        (lambda split: split.assign(id=split["id"] + "9"), "not in the table"),
        (lambda split: split.assign(bone_age=split["bone_age"] + 1), "another age or sex"),
    ],
)
def test_split_file_that_does_not_fit_is_refused(rsna: Path, tmp_path: Path, change: Any, message: str):
    change(data_of(rsna).split).to_csv(tmp_path / "split.csv", index=False)
    with pytest.raises(BoneAgeError, match=message):
        data_of(rsna, split_file=str(tmp_path / "split.csv"))


@pytest.mark.parametrize("protocol", ["disjoint", "published"])
def test_checkpoint_split_is_restored_whatever_options(rsna: Path, protocol: str):
    first = data_of(rsna, split_protocol=protocol, samples_per_group=8, seed=3)
    second = data_of(rsna, origin=first.record, samples_per_group=4, seed=9)
    pd.testing.assert_frame_equal(first.split, second.split)
    assert {k: second.record[k] for k in ("protocol", "seed", "samples_per_group")} == {
        "protocol": protocol,
        "seed": 3,
        "samples_per_group": 8,
    }


def test_new_split_validating_on_trained_images_is_refused(rsna: Path):
    origin = data_of(rsna, seed=1).record
    with pytest.raises(
        BoneAgeError, match=r"of the 20 validation images are training images .*\n.*\n.*allow_leakage=true"
    ):
        data_of(rsna, origin=origin, split_from="new", seed=2)
    data_of(rsna, origin=origin, split_from="new", seed=2, allow_leakage=True)
    data_of(rsna, origin=origin, split_from="new", seed=1)  # the same split again, without overlap
    apart = data_of(rsna, origin=origin, split_from="new_keep_train", seed=2).split
    assert not set(apart.loc[apart["subset"] == "validation", "id"]) & set(origin["train"])
    with pytest.raises(
        BoneAgeError, match=r"data.split_from=anew: choose from checkpoint, new, new_keep_train"
    ):
        data_of(rsna, origin=origin, split_from="anew")


def test_trained_image_under_other_id_is_detected(tmp_path: Path):
    write_rsna(tmp_path / "a", balanced_table(4))
    origin = data_of(tmp_path / "a").record
    table = balanced_table(4)
    write_rsna(tmp_path / "b", table.assign(id=table["id"] + 1000))
    for image in (tmp_path / "b").rglob("*.png"):  # the same images, renamed
        source = tmp_path / "a" / "boneage-training-dataset" / f"{int(image.stem) - 1000}.png"
        image.write_bytes(source.read_bytes())
    with pytest.raises(BoneAgeError, match="are training images"):
        data_of(tmp_path / "b", origin=origin, split_from="new", seed=4)
    apart = data_of(tmp_path / "b", origin=origin, split_from="new_keep_train", seed=4).split
    validation = apart.loc[apart["subset"] == "validation", "id"]
    assert not {str(int(i) - 1000) for i in validation} & set(origin["train"])


def test_checkpoint_split_needs_its_own_data(rsna: Path, tmp_path: Path):
    table = balanced_table(4)
    write_rsna(tmp_path, table.assign(id=table["id"] + 1000))
    with pytest.raises(BoneAgeError, match=r"the split stored in ckpt= has 60 images, of which 60 are not"):
        data_of(tmp_path, origin=data_of(rsna).record)


def test_other_images_under_checkpoint_ids_are_detected(rsna: Path, tmp_path: Path):
    """Another data set may have the same ids for other images."""
    origin = data_of(rsna).record
    write_rsna(tmp_path, balanced_table(4))
    swapped = [tmp_path / "boneage-training-dataset" / f"{i}.png" for i in (3, 4)]
    contents = [image.read_bytes() for image in swapped]
    for image, content in zip(swapped, reversed(contents), strict=True):
        image.write_bytes(content)
    with pytest.raises(
        BoneAgeError, match=r"2 of the 80 images of the checkpoint's split have changed .*id 3, 4"
    ):
        data_of(tmp_path, origin=origin)
    data_of(tmp_path, origin=origin, allow_leakage=True)


def test_empty_root_is_not_working_folder():
    with pytest.raises(BoneAgeError, match="BONEAGE_DATA"):
        BoneAgeDataModule("")


# one image twice


@pytest.mark.parametrize("prepare", [True, False])
def test_copies_stay_on_one_side(tmp_path: Path, prepare: bool):
    table = balanced_table(6)
    copies = table.assign(id=table["id"] + 1000)
    write_rsna(tmp_path, pd.concat([table, copies]))
    for i in table["id"]:  # the same pixels in another file
        Image.open(tmp_path / FOLDER / f"{i}.png").save(
            tmp_path / FOLDER / f"{i + 1000}.png", compress_level=int(i) % 2
        )
    data = data_of(tmp_path, samples_per_group=8, cache=prepare)
    sides = data.split.assign(image=data.split["id"].astype(int) % 1000).groupby("image")["subset"]
    assert sides.nunique().max() == 1
    assert data.split["subset"].value_counts().to_dict() == {"train": 120, "validation": 40}


def test_copies_with_different_ages_are_reported(tmp_path: Path):
    write_rsna(tmp_path, balanced_table(4))
    (tmp_path / FOLDER / "80.png").write_bytes((tmp_path / FOLDER / "3.png").read_bytes())
    with pytest.raises(
        BoneAgeError, match=r"2 × image with another age or sex in another row: .*3.png \(ids "
    ):
        data_of(tmp_path)
    data = data_of(tmp_path, on_invalid="skip", age_bins=5, samples_per_group=8)
    assert sorted(data.skipped["id"]) == ["3", "80"]
    assert not {"3", "80"} & set(data.split["id"])


# small data


def rows_of(ages: list[int], male: list[bool]) -> pd.DataFrame:
    return pd.DataFrame({"id": range(1, len(ages) + 1), "boneage": ages, "male": male})


RNG = np.random.default_rng(0)
SMALL = {
    "fifty": rows_of([int(a) for a in RNG.integers(24, 200, 50)], [n % 2 == 0 for n in range(50)]),
    "four": rows_of([30, 90, 40, 100], [True, True, False, False]),
    "one age": rows_of([60] * 40, [n % 2 == 0 for n in range(40)]),
}
SAID = {
    "four": "Options for this table: data.age_bins=1 data.samples_per_group=3",
    "one age": "All bone ages are 60 months, a single age bin.\n"
    "Options for this table: data.age_bins=1 data.samples_per_group=20",
    "fifty": "Options for this table: data.age_bins=5 data.samples_per_group=5",
}


@pytest.mark.parametrize("name", SMALL)
def test_printed_options_work_together(tmp_path: Path, name: str):
    write_rsna(tmp_path, SMALL[name])
    with pytest.raises(BoneAgeError) as error:
        data_of(tmp_path, samples_per_group=400)
    assert SAID[name] in str(error.value)
    words = re.findall(r"data\.(age_bins|samples_per_group)=(\d+)", SAID[name])
    options = {key: int(value) for key, value in words}
    assert set(data_of(tmp_path, **options).split["subset"]) == {"train", "validation"}
    with pytest.raises(BoneAgeError):  # the largest possible number
        data_of(tmp_path, **options | {"age_bins": options["age_bins"] + 1})


def test_one_sex_table_trains_with_note(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    table = balanced_table(4)
    write_rsna(tmp_path, table[~table["male"]])
    with caplog.at_level("INFO"):
        data = data_of(tmp_path, samples_per_group=8)
    assert len(data.split) == 10 * 8
    assert "no boys in the table: the groups are of girls only" in caplog.text


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (
            rows_of([60, 90, 120, 150], [True, False, False, False]),
            "No number of age bins works: a single boy",
        ),
        (rows_of([60, 90], [True, True]).assign(boneage="old"), "no usable row."),
    ],
)
def test_unhelpable_table_is_explained(tmp_path: Path, table: pd.DataFrame, message: str):
    write_rsna(tmp_path, table)
    with pytest.raises(BoneAgeError) as error:
        data_of(tmp_path, on_invalid="skip")
    assert message in str(error.value)
    assert "nan" not in str(error.value)
