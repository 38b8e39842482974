"""Bone ages in Python: predict.py CHECKPOINT F|M|unknown IMAGE..., where the package is installed."""

import sys

from boneage_pl import BoneAgePredictor

checkpoint, sex, *images = sys.argv[1:]
model = BoneAgePredictor.load(checkpoint)
for prediction in model.predict(images, sex=sex):
    if prediction.error:
        print(prediction.path, prediction.error)
    else:
        interval = f"{prediction.lower:.0f} to {prediction.upper:.0f}"
        print(
            prediction.path, prediction.sex, f"{prediction.months:.1f} months ({interval})", *prediction.flags
        )
