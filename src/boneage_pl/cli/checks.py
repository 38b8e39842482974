"""Schema of the numbers and switches in the configurations of all commands."""

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le, Lt, MinLen
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from typing_extensions import TypedDict

from boneage_pl.errors import BoneAgeError, first_line

_Positive = Annotated[int, Ge(1)]
_Whole = Annotated[int, Ge(0)]
_Seed = Annotated[int, Ge(0), Lt(2**32)]  # NumPy's limit
_Number = Annotated[float, Ge(0), Lt(float("inf"))]
_Share = Annotated[float, Gt(0), Le(1)]


class _Phantom(TypedDict, total=False):
    count: _Positive | None
    size: _Positive | None
    seed: _Seed | None
    skeleton_age: _Number | None


class _Data(TypedDict, total=False):
    batch_size: _Positive
    image_size: _Positive
    age_bins: _Positive
    samples_per_group: Annotated[int, Ge(2)]
    val_fraction: _Number
    fold: _Positive
    split_seed: _Whole | None
    num_workers: _Whole | None
    cache_workers: _Positive | None
    prefetch_factor: _Positive | None
    phantom: _Phantom | None
    cache: bool
    allow_leakage: bool
    persistent_workers: bool
    pin_memory: bool | None
    on_device: bool | None


class _Model(TypedDict, total=False):
    allow_download: bool


class _Optimizer(TypedDict, total=False):
    lr: _Number
    fused: bool | None
    layer_decay: _Share | None
    no_decay_1d: bool


class _Scheduler(TypedDict, total=False):
    patience: _Whole
    factor: _Share
    min_lr: _Number | list[_Number]


class _EarlyStopping(TypedDict, total=False):
    patience: _Whole
    min_delta: _Number


class _Callbacks(TypedDict, total=False):
    early_stopping: _EarlyStopping | None


class _Trainer(TypedDict, total=False):
    max_epochs: _Positive
    accumulate_grad_batches: _Positive
    gradient_clip_val: _Number | None
    check_val_every_n_epoch: _Positive
    limit_train_batches: _Positive | _Share | None
    limit_val_batches: _Positive | _Share | None
    fast_dev_run: bool | _Whole
    sync_batchnorm: bool | None
    benchmark: bool | None
    detect_anomaly: bool
    enable_progress_bar: bool | None
    enable_model_summary: bool | None


class _Archives(TypedDict, total=False):
    count: _Number


class Options(TypedDict, total=False):
    """Numbers and switches among the options of all commands; other options are not checked.

    A switch must not be a string: Hydra reads `no` as one, which would be true.
    """

    seed: _Seed
    compile: bool | str
    requires_ckpt_of: str | None
    suggested_next: str | None
    data: _Data
    model: _Model
    optimizer: _Optimizer
    scheduler: _Scheduler | None
    callbacks: _Callbacks
    trainer: _Trainer
    batch_size: _Positive
    interval_level: Annotated[float, Ge(0.001), Lt(1)]
    verify_count: Annotated[int, Ge(2)]
    max_mae_increase: _Number
    max_upload_mb: _Positive
    max_images: _Positive
    port: Annotated[int, Ge(1), Lt(65536)] | None
    training: _Archives
    validation: _Archives | None
    timeout: Annotated[float, Ge(0.001), Lt(float("inf"))]
    retries: _Number
    retry_wait: _Number
    unpack_factor: _Number
    unpack_limit: _Number
    accept_terms: bool
    keep_archives: bool
    dicom_sr: bool
    include_patient_id: bool
    robustness: bool
    page: bool
    token: Annotated[str, MinLen(1)] | int | None
    root_path: str
    output_dir: Annotated[str, MinLen(1)]  # an empty one would be the root folder


def check_values(config: DictConfig) -> None:
    """Raise `BoneAgeError` for the first invalid number or switch."""
    from pydantic import TypeAdapter, ValidationError  # slow to import

    values: dict[str, Any] = {}
    try:
        for key in Options.__annotations__:
            if key in config and not OmegaConf.is_missing(config, key):
                node = config[key]
                values[key] = (
                    OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node
                )
        TypeAdapter(Options).validate_python(values, strict=True)
    except OmegaConfBaseException as error:
        raise BoneAgeError(first_line(error)) from error
    except ValidationError as error:
        errors = error.errors(include_url=False)
        option = _option(values, errors[0]["loc"])
        reasons = ", or ".join(reason(e) for e in errors if _option(values, e["loc"]) == option)
        raise BoneAgeError(f"{option}={OmegaConf.select(config, option)}: {reasons}.") from error


def reason(error: Mapping[str, Any]) -> str:
    """Rephrase a pydantic error about an option."""
    return error["msg"].replace("Input should", "it must", 1).replace("a valid boolean", "true or false")  # type: ignore[no-any-return]


def _option(values: Any, location: tuple[Any, ...]) -> str:
    """Return the option of a pydantic error, without the alternatives of a union."""
    path = []
    for key in location:
        if not isinstance(values, dict) or key not in values:
            break
        path.append(key)
        values = values[key]
    return ".".join(path)
