"""One checkpoint of an ensemble, with test-time augmentation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from boneage_pl.data.corruptions import flip, rotation
from boneage_pl.data.images.resize import Pixels, ResizeSpec
from boneage_pl.errors import BoneAgeError
from boneage_pl.model.feature_maps import FeatureHook
from boneage_pl.model.inference import BatchPredictor, PredictionBatch, average_predictions
from boneage_pl.prediction.ood import Flags, load_ood_detector
from boneage_pl.training.checkpoint import load_for_inference
from boneage_pl.training.metadata import CheckpointMetadata

TTATransform = Callable[[Pixels], Pixels]
_MAX_ROTATION = 45  # degrees; our choice: a hand on its side is another image


class EnsembleMember:
    """One checkpoint of an ensemble.

    Args:
        path: checkpoint file.
        tta: see `parse_tta`.
        device: see `BatchPredictor`.
        trusted_config: see `load_for_inference`.

    Raises:
        BoneAgeError: see `load_for_inference`.
    """

    def __init__(
        self, path: Path, tta: Any = None, device: str | None = None, trusted_config: Any = None
    ) -> None:
        self.path = path
        module, checkpoint = load_for_inference(path, trusted_config)
        self.metadata: CheckpointMetadata = checkpoint.metadata
        self.tta = parse_tta(tta, self.metadata)
        self.predictor = BatchPredictor(module, self.metadata.precision, device)
        self.ood_detector = load_ood_detector(checkpoint, self.predictor)

    @property
    def resize_spec(self) -> ResizeSpec:
        """Size and resize mode of the input."""
        return self.metadata.resize_spec

    def predict_batch(
        self, pixels: Pixels, male: Sequence[bool], sizes: Sequence[tuple[int, int]]
    ) -> tuple[PredictionBatch, Flags]:
        """Return the mean over test-time augmentations and the detector's flags.

        Args:
            pixels: uint8 [B, side, side].
            male: whether each is of a boy.
            sizes: width and height of the original images.
        """
        detector, flags = self.ood_detector, {}
        if detector and detector.features:
            with FeatureHook(self.predictor.module.network, detector.layer) as hook:
                predictions = [self.predictor(pixels, male)]
            flags = detector.flag_features(hook.features.numpy())
        else:
            predictions = [self.predictor(pixels, male)]
        if detector:
            flags["resolution_mismatch"] = ~detector.matches_resolution(pixels, sizes, self.resize_spec.mode)
        predictions += [self.predictor(view(pixels), male) for view in self.tta]
        return average_predictions(predictions), flags


def parse_tta(named: Any, metadata: CheckpointMetadata | None = None) -> list[TTATransform]:
    """Parse test-time augmentations, which are averaged with the unchanged image.

    Args:
        named: `flip`, degrees to rotate by, or a list of both; `None` for those of the checkpoint's
            experiment.
        metadata: of the checkpoint.

    Raises:
        BoneAgeError: another value.
    """
    if named is None:
        named = metadata.config.get("tta") if metadata else None
    listed = [] if named is None else [named] if isinstance(named, str | int | float) else list(named)
    transforms: list[TTATransform] = []
    for view in listed:
        if view == "flip":
            transforms.append(flip)
        elif isinstance(view, int | float) and not isinstance(view, bool) and 0 < abs(view) <= _MAX_ROTATION:
            transforms.append(rotation(view))
        else:
            raise BoneAgeError(
                f"tta={named}: it must be flip, degrees to rotate by (up to {_MAX_ROTATION}), or a list, as "
                "in tta=[flip,-5,5]."
            )
    return transforms
