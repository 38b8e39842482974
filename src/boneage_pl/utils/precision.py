"""Lightning's names of precisions."""

from boneage_pl.errors import BoneAgeError

AUTO = "auto"
_SHORT = {"64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}


def normalize_precision(precision: str | int) -> str:
    """Return the full name of a precision, such as `bf16-mixed` for `bf16`; `auto` is unchanged.

    Raises:
        BoneAgeError: unknown precision. Half-precision weights are not supported, because small optimizer
            steps would be lost.
    """
    name = _SHORT.get(str(precision), str(precision))
    if name not in (AUTO, *_SHORT.values()):
        raise BoneAgeError(f"trainer.precision={precision}: it must be {AUTO}, {', '.join(_SHORT.values())}.")
    return name
