"""Bone ages from an exported model, with nothing of boneage_pl: onnx_predict.py MODEL.onnx F|M IMAGE...

Needs numpy, pillow and onnxruntime. For 8-bit radiographs and models with resize_mode=crop.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

file, sex, *images = sys.argv[1:]
session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
metadata = session.get_modelmeta().custom_metadata_map
assert metadata.get("resize_mode") == "crop", metadata.get("resize", "not an export of boneage_pl")
side, male = int(metadata["image_size"]), ["F", "M"].index(sex)
widths = [row for row in json.loads(metadata["intervals"]) if row["male"] == male]
for image in images:
    gray = Image.open(image).convert("L")
    width, height = (int(side * length / min(gray.size)) for length in gray.size)
    left, top = round((width - side) / 2), round((height - side) / 2)
    gray = gray.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + side, top + side))
    inputs = {"image": np.asarray(gray)[None, None], "male": np.array([male], np.float32)}
    months = float(session.run(["months"], inputs)[0][0])
    half_width = [row["half_width"] for row in widths if row["from"] <= max(months, 0)][-1]
    print(f"{image}: {months:.1f} months, ± {half_width or float('nan'):.1f}")
