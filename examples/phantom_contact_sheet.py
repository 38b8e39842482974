"""A contact sheet of the phantom at ages 1 to 228 months: `python -m examples.phantom_contact_sheet FILE`."""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from boneage_pl.data.phantom.render import render_radiograph

AGES = (1, 6, 12, 24, 36, 60, 84, 108, 132, 156, 168, 186, 204, 228)
COLUMNS = 7
TILE = 184  # pixels
CAPTION = 20
SEED = 0


def contact_sheet() -> Image.Image:
    """Return the sheet, mode `L`: two rows of boys above two of girls, youngest first, each with its age."""
    rows = len(AGES) // COLUMNS
    sheet = Image.new("L", (COLUMNS * TILE, 2 * rows * (TILE + CAPTION)), 255)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for sex, male in enumerate((True, False)):
        for i, age in enumerate(AGES):
            x, y = i % COLUMNS * TILE, (sex * rows + i // COLUMNS) * (TILE + CAPTION)
            # Drawn large and reduced, as a network sees it; the same index for both sexes shows one build.
            image = render_radiograph(age, male, seed=SEED, index=i)
            image = image.resize((TILE - 4, TILE - 4), Image.Resampling.LANCZOS)
            sheet.paste(image, (x + 2, y + CAPTION))
            pen.text((x + 4, y + 3), f"{'boy' if male else 'girl'}, {_spoken(age)}", fill=0, font=font)
    return sheet


def _spoken(months: int) -> str:
    return f"{months} month{'s' * (months != 1)}" + (f" ({months / 12:.3g} y)" if months >= 12 else "")


if __name__ == "__main__":
    file = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/phantom.png")
    file.parent.mkdir(parents=True, exist_ok=True)
    contact_sheet().save(file, optimize=True)
