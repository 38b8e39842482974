from typing import Any

import pytest
from omegaconf import OmegaConf

from boneage_pl.cli.checks import check_values
from boneage_pl.errors import BoneAgeError


@pytest.mark.parametrize(
    ("config", "option"),
    [
        ({"optimizer": {"lr": float("nan")}}, "optimizer.lr=nan"),
        ({"optimizer": {"lr": "0,1"}}, "optimizer.lr=0,1"),
        ({"data": {"phantom": {"size": True}}}, "data.phantom.size=True"),
        ({"data": {"batch_size": 3.0}}, "data.batch_size=3.0"),
        ({"data": {"batch_size": None}}, "data.batch_size=None"),
        ({"trainer": {"limit_train_batches": 1.5}}, "trainer.limit_train_batches=1.5"),
        ({"trainer": {"fast_dev_run": -1}}, "trainer.fast_dev_run=-1"),
        ({"data": "x"}, "data=x"),
        ({"seed": "${nothing}"}, "nothing"),
        ({"include_patient_id": "no"}, "include_patient_id=no: it must be true or false."),
        ({"data": {"allow_leakage": "off"}}, "data.allow_leakage=off"),
        ({"output_dir": ""}, "output_dir="),
        ({"token": ""}, "token="),
        ({"optimizer": {"layer_decay": "half"}}, "optimizer.layer_decay=half"),
        ({"scheduler": {"factor": -1}}, "scheduler.factor=-1"),
        ({"callbacks": {"early_stopping": {"patience": -1}}}, "callbacks.early_stopping.patience=-1"),
        ({"trainer": {"gradient_clip_val": -1}}, "trainer.gradient_clip_val=-1"),
        ({"token": 12.5}, "token=12.5"),
    ],
)
def test_option_out_of_range_is_named(config: dict[str, Any], option: str):
    with pytest.raises(BoneAgeError, match=option.replace(".", r"\.")):
        check_values(OmegaConf.create(config))


def test_shares_nulls_and_missing_options_pass():
    trainer = {"limit_val_batches": 0.5, "limit_train_batches": None, "fast_dev_run": True}
    check_values(OmegaConf.create({"trainer": trainer, "data": {"num_workers": None}, "batch_size": "???"}))
