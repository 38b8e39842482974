"""Standard deviation of skeletal age by chronological age."""

from bisect import bisect_right

SOURCE = (
    "Brush Foundation study, in Greulich and Pyle, Radiographic Atlas of Skeletal Development of the Hand "
    "and Wrist, 2nd edition, Stanford University Press 1959"
)
# Chronological age and standard deviation of skeletal age, in months, as in programs that cite the study; the
# book was not available.
_GIRLS = (
    (3, 0.72), (6, 1.16), (9, 1.36), (12, 1.77), (18, 3.49), (24, 4.64), (30, 5.37), (36, 5.97), (42, 7.48),
    (48, 8.98), (54, 10.73), (60, 11.65), (72, 10.23), (84, 9.64), (96, 10.23), (108, 10.74), (120, 11.73),
    (132, 11.94), (144, 10.24), (156, 10.67), (168, 11.30), (180, 9.23), (192, 7.31),
)  # fmt: skip
_BOYS = (
    (3, 0.69), (6, 1.13), (9, 1.43), (12, 1.97), (18, 3.52), (24, 3.92), (30, 4.52), (36, 5.08), (42, 5.40),
    (48, 6.66), (54, 8.36), (60, 8.79), (72, 9.17), (84, 8.91), (96, 9.10), (108, 9.00), (120, 9.79),
    (132, 10.09), (144, 10.38), (156, 10.44), (168, 10.72), (180, 11.32), (192, 12.86), (204, 13.05),
)  # fmt: skip


def skeletal_age_sd(age: float, *, male: bool) -> float | None:
    """Return the standard deviation of skeletal age at a chronological age, in months.

    Linearly interpolated; `None` outside 3 months to 16 years (girls) or 17 (boys). The children were from
    well-to-do families in Cleveland, Ohio, in the 1930s; others may differ.

    Args:
        age: chronological age in months.
        male: sex.
    """
    table = _BOYS if male else _GIRLS
    if not table[0][0] <= age <= table[-1][0]:
        return None
    at = min(bisect_right(table, age, key=lambda row: row[0]), len(table) - 1)
    (from_age, from_sd), (to_age, to_sd) = table[at - 1], table[at]
    return from_sd + (to_sd - from_sd) * (age - from_age) / (to_age - from_age)
