import numpy as np

from boneage_pl.utils.plots import image_grid


def test_image_grid_places_titles_and_images(tmp_path):
    images = np.stack([np.full((30, 20), 40 * k, np.uint8) for k in range(6)])
    figure = image_grid(images, [f"boy\n{k} months" for k in range(6)])
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.texts] == [f"boy\n{k} months" for k in range(6)]
    boxes = [image.get_extent() for image in axes.images]  # left, right, bottom, top
    for one, text in zip(boxes, axes.texts, strict=True):
        assert one[0] < text.get_position()[0] < one[1]
        assert text.get_position()[1] > one[3]
        for other in boxes:
            apart = one[1] <= other[0] or other[1] <= one[0] or one[3] <= other[2] or other[3] <= one[2]
            assert one == other or apart
    assert [int(image.get_array()[0, 0]) for image in axes.images] == [40 * k for k in range(6)]
    figure.savefig(tmp_path / "sheet.png")
