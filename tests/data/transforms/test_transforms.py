"""Each augmentation does what it says to each image by its own numbers, and nothing where it is off."""

from io import BytesIO
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from boneage_pl.cli import CONF_DIR
from boneage_pl.data.phantom.render import render_radiograph
from boneage_pl.data.transforms.compose import Compose, hashed_uniform
from boneage_pl.data.transforms.degradation import (
    FILTERS,
    GaussianBlur,
    GaussianNoise,
    JPEGCompression,
    RandomResampling,
    resampling_matrix,
)
from boneage_pl.data.transforms.geometric import CropToContent, RandomAffine, Resize
from boneage_pl.data.transforms.intensity import (
    FixPolarity,
    IntensityJitter,
    PercentileContrast,
    RandomInversion,
)
from boneage_pl.data.transforms.occlusion import RandomBorder, RandomErasing, RandomMarker

# What leaves images as they are, and what changes every one of them.
KINDS: list[tuple[Any, Any]] = [
    (RandomAffine(), RandomAffine(20, 0.2, 5, 0.1, 0.5)),
    (IntensityJitter(), IntensityJitter(0.5, 0.5, 0.2)),
    (RandomInversion(0), RandomInversion(1)),
    (GaussianBlur(0), GaussianBlur(1, 0.05)),
    (GaussianNoise(0), GaussianNoise(1, 0.2)),
    (JPEGCompression(0), JPEGCompression(1, (20, 40))),
    (RandomResampling(0), RandomResampling(1)),
    (RandomErasing(0), RandomErasing(1, 0.5)),
    (RandomBorder(0), RandomBorder(1, 0.4)),
    (RandomMarker(0), RandomMarker(1)),
]
NAMES = [type(one).__name__ for one, _ in KINDS]


def keys(count: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 2**53, (count,), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def hands() -> Tensor:
    drawn = [render_radiograph((30, 90)[k % 2], k % 2 == 0, seed=0, index=k, size=96) for k in range(8)]
    return torch.from_numpy(np.stack(drawn)).unsqueeze(1)


@pytest.mark.parametrize(("nothing", "something"), KINDS, ids=NAMES)
def test_transforms_change_each_image_alone(nothing: Any, something: Any, hands: Tensor):
    plain = hands.float() / 255
    torch.testing.assert_close(Compose([nothing])(hands, keys(8)), plain, atol=1e-5, rtol=0)
    changed = Compose([something])(hands, keys(8))
    assert changed.dtype == torch.float32
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert sum((changed - plain).abs().amax((1, 2, 3)) > 0.01) >= 7  # one may have drawn next to nothing
    # by its own key, whatever stands beside it; of floating point as of bytes
    alone = Compose([something])(hands[3:4], keys(8)[3:4])
    torch.testing.assert_close(alone, changed[3:4], atol=1e-5, rtol=0)
    torch.testing.assert_close(Compose([something])(plain, keys(8)), changed, atol=1e-5, rtol=0)
    again = Compose([something])(hands[:1].expand(8, -1, -1, -1), keys(8, seed=1))
    kinds = {RandomInversion: 1}.get(type(something), 7)
    assert len(again.flatten(1).unique(dim=0)) >= kinds


def test_jpeg_compression_is_that_of_pillow():
    hand = np.array(render_radiograph(60, True, seed=0, index=1, size=101))
    for quality in (10, 20, 50, 75, 95):
        step = JPEGCompression(0.5, (quality, quality))
        found = step(torch.from_numpy(hand)[None, None], torch.tensor([[0.4, 0.5]]))[0, 0].numpy() * 255
        file = BytesIO()
        Image.fromarray(hand).save(file, "JPEG", quality=quality)
        expected = np.asarray(Image.open(file)).astype(float)
        assert np.abs(found - expected).mean() < 0.3  # whose cosines are integers
        assert np.abs(found - expected).mean() < np.abs(expected - hand).mean() / 4


PILLOW = (Image.Resampling.BILINEAR, Image.Resampling.BOX, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)


def test_resampling_is_that_of_pillow_and_pytorch(hands: Tensor):
    image, plain = Image.fromarray(hands[0, 0].numpy()), hands[:1].float() / 255
    for kind, (kernel, antialias) in enumerate(FILTERS):
        number = (kind + 0.5) / len(FILTERS)
        for level, side in ((0.1, 48), (0.9, 71)):
            matrix = resampling_matrix(96, side, kernel, antialias).float()
            small = (matrix @ plain[:, 0] @ matrix.T).unsqueeze(1)
            if antialias:  # it rounds to bytes between rows and columns, and cuts off what Lanczos overshoots
                reduced = np.asarray(image.resize((side, side), PILLOW[kind]))
                expected = torch.from_numpy(reduced).float() / 255
                assert (small[0, 0] - expected).abs().mean() < 0.003
            elif kind % 4 < 2:
                mode = ("bilinear", "nearest-exact")[kind % 4]
                torch.testing.assert_close(small, F.interpolate(plain, (side, side), mode=mode))
            for size in (96, 64):
                step = RandomResampling(0.5, (0.5, 0.74), size)
                found = step(hands[:1], torch.tensor([[0.4, level, number]]))
                expected = F.interpolate(small, (size, size), mode="bilinear", antialias=True).clamp(0, 1)
                torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    left = RandomResampling(0.5)(hands[:1], torch.tensor([[0.6, 0.1, 0.1]]))
    torch.testing.assert_close(left, plain, atol=1e-6, rtol=0)


def test_affine_rotates_like_pillow(hands: Tensor):
    turn = RandomAffine(rotation=30)
    ours = turn(hands[:1], torch.tensor([[0.9, 0.999999, 0.5, 0.5, 0.5, 0.5]]))
    theirs = Image.fromarray(hands[0, 0].numpy()).rotate(30, Image.Resampling.BILINEAR)
    difference = (ours[0, 0] * 255 - torch.from_numpy(np.asarray(theirs).astype(np.float32))).abs()
    assert difference[4:-4, 4:-4].mean() < 1.5  # of 255; the two place pixels half a one apart at the edges


def test_affine_scales_shifts_and_flips(hands: Tensor):
    still = torch.full((1, 6), 0.5)
    larger = still.clone()
    larger[0, 2] = 0.999999
    assert larger.sum() > still.sum()
    middle = hands[:1, :, 24:72, 24:72].float() / 255
    enlarged = F.interpolate(middle, (96, 96), mode="bilinear", align_corners=False)
    found = RandomAffine(scale=1.0)(hands[:1], larger)
    assert (found - enlarged)[:, :, 8:-8, 8:-8].abs().mean() < 0.02
    moved = still.clone()
    moved[0, 5] = 1.0
    found = RandomAffine(shift=0.25)(hands[:1], moved)
    torch.testing.assert_close(found[..., :72], hands[:1, :, :, 24:].float() / 255, atol=1e-4, rtol=0)
    assert found[..., 72:].max() < 1e-4  # black comes in
    mirrored = RandomAffine(flip=1.0)(hands, hashed_uniform(keys(8), 6))
    torch.testing.assert_close(mirrored, hands.flip(3).float() / 255, atol=1e-4, rtol=0)


def test_resize_is_antialiased_like_pillow(hands: Tensor):
    small = Image.fromarray(hands[0, 0].numpy()).resize((64, 64), Image.Resampling.BILINEAR)
    expected = torch.from_numpy(np.asarray(small).astype(np.float32)) / 255
    found = Resize(64)(hands)[0, 0]
    torch.testing.assert_close(found, expected, atol=0.004, rtol=0)  # rounded to bytes, twice
    assert Resize()(hands) is hands
    unreduced = RandomResampling(0.0, size=64)(hands, torch.zeros(8, 3))
    torch.testing.assert_close(unreduced, Resize(64)(hands), atol=1e-6, rtol=0)  # as a validation sees it


def test_crop_enlarges_square_around_content():
    images = torch.full((2, 1, 64, 64), 0.3)
    images[0, 0, 10:50, 20:50] = torch.rand(40, 30, generator=torch.Generator().manual_seed(0))
    around = F.pad(images[:1, :, 10:50, 20:50], [5, 5, 0, 0], mode="replicate")
    cropped = CropToContent()(images)
    torch.testing.assert_close(cropped[:1], F.interpolate(around, 64, mode="bilinear"), atol=1e-6, rtol=0)
    assert torch.equal(cropped[1], images[1])  # it has no content


@pytest.mark.parametrize("gray", [0, 90, 255])
def test_crop_undoes_frames_of_any_gray(gray: int, hands: Tensor):
    framed = F.pad(hands, [12, 12, 12, 12], value=gray)
    crop, size = CropToContent(), Resize(96)
    expected = crop(hands)
    assert (expected - hands / 255).abs().mean() > 0.02  # phantoms have margins
    difference = (size(crop(framed)) - expected).abs().mean((1, 2, 3))
    without = (size(framed) - hands / 255).abs().mean((1, 2, 3))
    assert (difference < without / 4).all()
    torch.testing.assert_close(1 - crop(255 - framed), crop(framed), atol=1e-5, rtol=0)
    torch.testing.assert_close(crop(framed[3:4]), crop(framed)[3:4])


def test_contrast_is_normalized(hands: Tensor):
    stretch = PercentileContrast(0.02, 0.98)
    expected = stretch(hands)
    share = (expected == 0).float().mean((1, 2, 3))
    assert (share >= 0.019).all()
    assert ((expected == 1).float().mean((1, 2, 3)) >= 0.019).all()
    dark = (hands.float() * 0.3 + 20) / 255
    torch.testing.assert_close(stretch(dark), expected, atol=1e-4, rtol=0)
    low, high = np.quantile(hands[0].numpy(), [0.02, 0.98])
    numpy = ((hands[0].numpy() - low) / (high - low)).clip(0, 1)
    assert np.abs(expected[0].numpy() - numpy).mean() < 0.01
    flat = torch.full((1, 1, 8, 8), 77, dtype=torch.uint8)
    assert not stretch(flat).any()


@pytest.mark.parametrize("gray", [0, 90, 230, 255])
@pytest.mark.parametrize("width", [0, 2, 12])
def test_polarity_inverts_negatives_only_and_darkens_frames(width: int, gray: int, hands: Tensor):
    framed = F.pad(hands, [width, width, 0, width], value=gray)
    expected = F.pad(hands, [width, width, 0, width], value=min(gray, 255 - gray)).float() / 255
    torch.testing.assert_close(FixPolarity()(framed), expected)
    torch.testing.assert_close(FixPolarity()(255 - framed), expected, atol=1e-6, rtol=0)
    faint = (framed * 0.05 + 100).round() / 255  # a line is flat beside the image's own contrast
    torch.testing.assert_close(FixPolarity()(faint), faint)
    black = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    assert not FixPolarity()(black).any()


def test_noise_is_gaussian_and_uncorrelated():
    gray = torch.full((64, 1, 32, 32), 0.5)
    random = torch.rand(64, 3, generator=torch.Generator().manual_seed(0))
    random[:, 0], random[:, 1] = 0, 1
    noise = GaussianNoise(1, 0.1)(gray, random) - 0.5
    assert noise.mean().abs() < 0.002
    assert noise.std() == pytest.approx(0.1, rel=0.02)
    assert torch.quantile(noise[:8].flatten(), 0.975) == pytest.approx(0.196, rel=0.05)
    assert torch.corrcoef(noise[:16].flatten(1)).fill_diagonal_(0).abs().max() < 0.15


def test_blur_is_gaussian():
    point = torch.zeros(1, 1, 33, 33)
    point[0, 0, 16, 16] = 1
    blurred = GaussianBlur(1, 2 / 33)(point, torch.tensor([[0.0, 1.0]]))[0, 0]
    place = torch.arange(33) - 16
    assert blurred.sum() == pytest.approx(1, abs=1e-4)
    assert (blurred.sum(0) * place**2).sum() == pytest.approx(4, rel=0.05)  # its variance, in pixels


def test_border_keeps_inside_and_marker_lies_at_side(hands: Tensor):
    plain = hands.float() / 255
    framed = RandomBorder(1, 0.25)(
        hands, torch.tensor([[0.0, 0.9, 1, 1, 1, 1], [0.0, 0.1, 1, 1, 1, 1]]).repeat(4, 1)
    )
    assert torch.equal(framed[..., 24:72, 24:72], plain[..., 24:72, 24:72])
    assert (framed[::2, :, :24] == 1).all()
    assert not framed[1::2, :, :24].any()
    many = hands.repeat(25, 1, 1, 1)
    marked = RandomMarker(1, 0.1, 0.3)(many, hashed_uniform(keys(200), 5))
    ink = (marked == 1) & (many < 255)
    assert (ink.sum((1, 2, 3)) > 5).all()
    assert not ink[..., 24:72].any()
    assert ink[..., :24].any()
    assert ink[..., 72:].any()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: RandomAffine(scale=-1),
        lambda: RandomAffine(flip=2),
        lambda: IntensityJitter(gamma=-1),
        lambda: PercentileContrast(1, 0),
        lambda: FixPolarity(middle=0),
        lambda: GaussianBlur(-0.1),
        lambda: JPEGCompression(0.1, (0, 20)),
        lambda: RandomResampling(0.1, []),
        lambda: RandomResampling(0.1, [2]),
        lambda: Resize(1.5),  # type: ignore[arg-type]
        lambda: RandomBorder(0.1, 0.6),
        lambda: RandomErasing("often"),  # type: ignore[arg-type]
        lambda: RandomMarker(0.1, float("nan")),
    ],
)
def test_invalid_parameters_are_refused(wrong: Any):
    with pytest.raises(ValueError, match=r"Input should|must be|at least 1"):
        wrong()


def test_arrival_is_augmented_before_it_is_normalized():
    """So that the network trains on what polarity and contrast make of a frame or of noise."""
    train = list(OmegaConf.load(CONF_DIR / "transforms" / "augmented.yaml").train)
    normalized = [train.index(name) for name in ("polarity", "contrast")]
    arrival = ("border", "marker", "inversion", "blur", "resolution", "noise")
    assert max(map(train.index, arrival)) < min(normalized)
    assert max(normalized) < min(map(train.index, ("affine", "intensity", "erasing")))


def test_augmented_config_composes(hands: Tensor):
    file = OmegaConf.create({"transforms": OmegaConf.load(CONF_DIR / "transforms" / "augmented.yaml")})
    made = instantiate(file.transforms, _convert_="all")
    train, validation = (Compose.from_config(made[side]) for side in ("train", "validation"))
    expected = PercentileContrast()(CropToContent()(hands))
    assert torch.equal(validation(hands, torch.zeros(8, dtype=torch.int64)), expected)
    one, other = train(hands, keys(8)), train(hands, keys(8, seed=1))
    assert torch.equal(one, train(hands, keys(8)))
    assert ((one - other).abs().mean((1, 2, 3)) > 0.01).all()
