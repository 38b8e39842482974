"""Bone ages by HTTP: api_client.py URL F|M|unknown FILE..., of a server `python -m boneage_pl.app ckpt=…`."""

import sys
from pathlib import Path

import httpx

url, sex, *files = sys.argv[1:]
form = [("files", (Path(file).name, Path(file).read_bytes())) for file in files]
response = httpx.post(f"{url}/api/v1/predict", files=form, data={"sex": sex}, timeout=600)
response.raise_for_status()
for row in response.json()["predictions"]:
    months = "" if row["error"] else f"{row['months']:.1f} months ({row['lower']:.0f} to {row['upper']:.0f})"
    print(row["path"], row["sex"], row["error"] or months, *row["flags"])
