"""Damaged files: each is read or rejected with the project's error within two seconds."""

import random
import shutil
import signal
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from boneage_pl.data.images.checks import BadImageError
from boneage_pl.data.images.radiograph import load_radiograph
from boneage_pl.data.images.resize import ResizeSpec
from boneage_pl.data.tables.load import load_table
from boneage_pl.data.tables.spec import DatasetSpec
from boneage_pl.errors import BoneAgeError
from tests.conftest import balanced_table, write_rsna
from tests.stress.harness import Row

SECONDS = 2


def mutations(folder: Path, count: int, seed: int) -> Row:
    """Damage `count` files, a fifth of them tables, and read them; `seed` determines the damage."""
    data = folder / "mutated"
    write_rsna(data / "csv", balanced_table(1))
    with ProcessPoolExecutor(2, get_context("fork")) as pool:
        done = [pool.submit(_try, data, number, seed) for number in range(count)]
        try:
            results = [future.result() for future in done]
        except BrokenProcessPool:
            results = ["crashed the process"]
    shutil.rmtree(data)
    outcomes = Counter(result if result in ("read", "rejected") else "failed" for result in results)
    failed = [f"file {n}: {r}" for n, r in enumerate(results) if r not in ("read", "rejected")]
    found = f"{outcomes['read']} read, {outcomes['rejected']} rejected; no crash, hang or warning"
    return Row("mutated PNG, JPEG and CSV files", count, failed, found)


def _try(data: Path, number: int, seed: int) -> str:
    draw = random.Random(f"{seed} {number}")

    def too_long(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", append=True)
        try:
            outcome = _read_table(data, number, draw) if number % 5 == 0 else _read_image(data, number, draw)
        except TimeoutError:
            outcome = "took more than two seconds"
        except Exception as error:  # any other than the project's own is a failure
            outcome = f"{type(error).__name__}: {error}"
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    return f"warned: {caught[0].message}" if caught else outcome


def _read_image(data: Path, number: int, draw: random.Random) -> str:
    path = data / f"{number}.{draw.choice(['png', 'jpg', 'jpeg'])}"
    path.write_bytes(mutated(random_image(draw), draw))
    try:
        ResizeSpec(107).apply(load_radiograph(path).image)
    except BadImageError:
        return "rejected"
    finally:
        path.unlink()
    return "read"


def _read_table(data: Path, number: int, draw: random.Random) -> str:
    root = data / str(number)
    root.mkdir()
    (root / "images").symlink_to(data / "csv" / "boneage-training-dataset")
    text = (data / "csv" / "boneage-training-dataset.csv").read_bytes()
    if draw.random() < 0.2:
        text = text.decode().encode(draw.choice(["utf-16", "utf-8-sig", "utf-32", "cp037"]))
    text = text.replace(b",", draw.choice([b",", b";", b"\t", b"|", b"::"]))
    (root / "table.csv").write_bytes(mutated(text.replace(b"\n", draw.choice([b"\n", b"\r\n", b"\r"])), draw))
    try:
        load_table(DatasetSpec(root))
    except BoneAgeError:
        return "rejected"
    finally:
        shutil.rmtree(root)
    return "read"


def random_image(draw: random.Random) -> bytes:
    """Return a small image file of random format, mode and size."""
    # some very narrow ones, which would fill the memory if resized by their shorter side
    sides = [draw.choice([1, 2, draw.randint(1, 200), draw.randint(1, 200)]), draw.randint(1, 200)]
    if draw.random() < 0.1:
        sides = [draw.randint(1, 2), draw.randint(5_000, 60_000)]
    draw.shuffle(sides)
    pixels = np.random.default_rng(draw.getrandbits(32)).integers(0, 256, (*sides, 3))
    mode = draw.choice(["L", "RGB", "P", "1", "LA", "RGBA", "I;16", "CMYK"])
    rgb = Image.fromarray(pixels.astype(np.uint8))
    made = Image.fromarray(pixels[:, :, 0].astype(np.uint16)) if mode == "I;16" else rgb.convert(mode)
    kind = "JPEG" if mode in ("L", "RGB", "CMYK") and draw.random() < 0.6 else "PNG"
    if draw.random() < 0.1 and max(sides) < 5_000:  # another format than the suffix
        made, kind = rgb, draw.choice(["GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "EPS", "PDF"])
    file = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = draw.randint(0, 9)
    extra = {"exif": exif} if kind in ("PNG", "JPEG") else {}
    if mode == "CMYK" and kind == "PNG":
        made = rgb
    made.save(file, kind, **extra)
    return file.getvalue()


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Damage a file: truncate, flip bits, overwrite the header, repeat, zero or insert parts."""
    data = bytearray(content)
    for _ in range(draw.choice([0, 1, 1, 1, 2, 5])):
        if not data:
            break
        at = draw.randrange(len(data))
        match draw.randrange(7):
            case 0:
                del data[at:]
            case 1:
                for _ in range(draw.choice([1, 8, 64])):
                    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            case 2:
                head = draw.randrange(min(len(data), 64))
                data[head : head + 4] = draw.randbytes(4)
            case 3:
                data[at:at] = data[: draw.randrange(200)]
            case 4:
                data[at : at + 50] = bytes(len(data[at : at + 50]))
            case 5:
                data[at:at] = draw.randbytes(draw.randrange(50))
            case 6:
                data[draw.randrange(len(data))] = 255
    return bytes(data)
