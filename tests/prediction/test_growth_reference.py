"""Standard deviation of skeletal age."""

import pytest

from boneage_pl.prediction.growth_reference import skeletal_age_sd


@pytest.mark.parametrize(
    ("age", "male", "months"),
    [
        (120, True, 9.79),
        (120, False, 11.73),
        (3, True, 0.69),
        (204, True, 13.05),  # the ends of the table
        (192, False, 7.31),
        (66, False, (11.65 + 10.23) / 2),  # halfway between five and six years
        (2.9, True, None),
        (193, False, None),
        (193, True, 12.86 + 0.19 / 12),
    ],
)
def test_sd_is_interpolated_from_table(age: float, male: bool, months: float | None):
    assert skeletal_age_sd(age, male=male) == (months if months is None else pytest.approx(months))
