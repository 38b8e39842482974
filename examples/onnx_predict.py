"""Bone ages from an exported model, with nothing of boneage_pl: onnx_predict.py MODEL.onnx F|M IMAGE...

Needs numpy, pillow and onnxruntime. For 8-bit radiographs, of any resize mode and orientation.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def to_square(image: Image.Image, side: int, mode: str) -> Image.Image:
    """Resize a gray image as the training did, see the file's metadata `resize`."""
    if mode == "stretch":
        return image.resize((side, side), Image.Resampling.BILINEAR)
    if mode == "pad":
        size = [max(round(length * side / max(image.size)), 1) for length in image.size]
        square = Image.new("L", (side, side))
        corner = ((side - size[0]) // 2, (side - size[1]) // 2)
        square.paste(image.resize(size, Image.Resampling.BILINEAR), corner)
        return square
    width, height = (int(side * length / min(image.size)) for length in image.size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + side, top + side))


file, sex, *images = sys.argv[1:]
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
metadata = session.get_modelmeta().custom_metadata_map
if "boneage_pl" not in metadata:
    sys.exit(f"{file} is no export of boneage_pl")
side, male = int(metadata["image_size"]), ["F", "M"].index(sex)
widths = [row for row in json.loads(metadata["intervals"]) if row["male"] == male]
for name in images:
    with Image.open(name) as opened:
        if opened.mode not in ("L", "RGB", "RGBA", "P", "LA", "1"):
            sys.exit(f"{name} is no 8-bit image ({opened.mode})")
        gray = ImageOps.exif_transpose(opened).convert("L")
    square = np.asarray(to_square(gray, side, metadata["resize_mode"]))
    inputs = {"image": square[None, None], "male": np.array([male], np.float32)}
    months = float(session.run(["months"], inputs)[0][0])
    half_width = [row["half_width"] for row in widths if row["from"] <= max(months, 0)][-1]
    print(f"{name}: {months:.1f} months, ± {half_width or float('nan'):.1f}")
