import pytest

from boneage_pl.data.phantom.ossification import (
    FUSION_MONTHS,
    OSSIFICATION_CENTERS,
    SCAR_MONTHS,
    fusion,
    growth,
    scar,
)


@pytest.mark.parametrize("name", OSSIFICATION_CENTERS)
def test_girls_are_never_behind_boys(name: str) -> None:
    for age in range(1, 229):
        assert growth(name, age, False) >= growth(name, age, True)
        assert fusion(name, age, False) >= fusion(name, age, True)


@pytest.mark.parametrize("name", OSSIFICATION_CENTERS)
@pytest.mark.parametrize("male", [True, False])
def test_centers_appear_grow_and_fuse_in_order(name: str, male: bool) -> None:
    center, sex = OSSIFICATION_CENTERS[name], 0 if male else 1
    assert growth(name, center.appears[sex], male) == 0
    assert 0 < growth(name, center.appears[sex] + 1, male) < 0.1
    assert growth(name, center.completes[sex], male) == 1
    if center.fuses is not None:
        assert fusion(name, center.completes[sex], male) == 0
        assert fusion(name, center.fuses[sex] - FUSION_MONTHS / 2, male) == pytest.approx(0.5)
        assert fusion(name, center.fuses[sex], male) == 1
        assert scar(name, center.fuses[sex], male) == 1
        assert scar(name, center.fuses[sex] + SCAR_MONTHS, male) == 0


def test_ossification_months_match_specification() -> None:
    appears = {
        "capitate": (3, 3), "hamate": (4, 4), "radius": (14, 10), "proximal_phalanx": (17, 11),
        "metacarpal": (24, 15), "middle_phalanx": (26, 17), "distal_phalanx": (30, 20),
        "triquetrum": (30, 24), "lunate": (42, 31), "scaphoid": (66, 51), "trapezium": (67, 48),
        "trapezoid": (67, 48), "ulna": (84, 66), "pisiform": (132, 108), "thumb_sesamoid": (152, 126),
    }  # fmt: skip
    assert {name: center.appears for name, center in OSSIFICATION_CENTERS.items()} == appears
    fuses = {"distal_phalanx": (186, 160), "proximal_phalanx": (192, 168), "middle_phalanx": (192, 168)}
    fuses |= {"metacarpal": (192, 168), "radius": (216, 198)}
    assert {name: OSSIFICATION_CENTERS[name].fuses for name in fuses} == fuses


def test_centers_name_their_source() -> None:
    assert all(
        any(word in c.source for word in ("GARN", "RANGE", "GP", "APPROX"))
        for c in OSSIFICATION_CENTERS.values()
    )
