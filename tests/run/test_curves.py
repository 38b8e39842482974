import torch

from boneage_pl.run.curves import sample_grid


def test_the_grid_shows_the_pixels_with_sex_and_age():
    axes = sample_grid(torch.full((5, 8, 8), 0.4), torch.ones(5), torch.full((5,), 96.0)).axes[0]
    assert axes.get_title() == "boy, 96 months"
    assert float(axes.images[0].get_array()[0, 0]) == torch.tensor(0.4)
