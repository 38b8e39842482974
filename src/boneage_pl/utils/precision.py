"""Lightning's names of a precision."""

from boneage_pl.errors import BoneAgeError

AUTO = "auto"
_SHORT = {"64": "64-true", "32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}


def normalize_precision(precision: str | int) -> str:
    """Return the full name of a precision, such as `bf16-mixed` for `bf16`; `auto` stays.

    Raises:
        BoneAgeError: another precision. Weights in half precision are rejected: an optimizer's small steps
            would be lost in them.
    """
    name = _SHORT.get(str(precision), str(precision))
    if name not in (AUTO, *_SHORT.values()):
        raise BoneAgeError(f"trainer.precision={precision}: it must be {AUTO}, {', '.join(_SHORT.values())}.")
    return name
