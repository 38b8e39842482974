"""ONNX files: written by PyTorch's exporter, made smaller by ONNX Runtime's tools."""

import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from boneage_pl.deploy.exported import Ask, Exported, traced
from boneage_pl.deploy.measured import answers
from boneage_pl.deploy.trial import Pictures
from boneage_pl.errors import BoneageError
from boneage_pl.machine.pool import cores
from boneage_pl.reading.extras import needed

MOST_BYTES = 1.9e9  # a file is one protocol buffer, which holds 2 GiB
_INPUTS, _OUTPUT = ("image", "male"), "months"
_LEFT = 0.01  # of all numbers: a matrix with fewer gains nothing from 8 bits, and the last one loses by it
STEM = 5  # convolutions that stay whole where all in 8 bits cost too much; our choice, see docs/EXPORT.md
_FEWEST = 20  # answers that a slope is taken from


def needs_onnx() -> None:
    """Raise `BoneageError` unless what writes, changes and runs ONNX files is installed."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        needed(module, "format=onnx", "onnx")


def write_onnx(model: Exported, path: Path) -> None:
    """Write a model in float32, whose batch may have any size.

    Raises:
        BoneageError: it is too large for a file.
    """
    if model.bytes > MOST_BYTES:
        raise BoneageError(
            f"the model takes {model.bytes / 1e9:.1f} GB in float32, and an ONNX file holds 2:\n"
            "export fewer checkpoints together, or each by itself."
        )
    any_batch = {0: torch.export.Dim.DYNAMIC}
    with _quietly(), traced("format=onnx"):
        program = torch.onnx.export(
            model,
            model.example(),
            dynamo=True,
            dynamic_shapes={"image": any_batch, "male": any_batch},
            input_names=list(_INPUTS),
            output_names=[_OUTPUT],
            external_data=False,
            verbose=False,
        )
    assert program is not None
    with _quietly():
        program.save(path)


def describe(path: Path, said: Mapping[str, str]) -> None:
    """Add what a file says of its model, and name the size that varies."""
    onnx = needed("onnx", "format=onnx", "onnx")
    model = onnx.load(path)
    del model.metadata_props[:]
    for key, value in said.items():
        model.metadata_props.add(key=key, value=value)
    for of_graph in (model.graph.input, model.graph.output):
        for value in of_graph:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for node in model.graph.node:  # the exporter's notes, with the paths of this machine's files
        del node.metadata_props[:]
    onnx.save(model, path)


def halve(path: Path, to: Path) -> None:
    """Write `path` with numbers of 16 bits, which are computed with too where the hardware can."""
    onnx = needed("onnx", "precision=float16", "onnx")
    float16 = needed("onnxruntime.transformers.float16", "precision=float16", "onnx")
    with _quietly():
        onnx.save(float16.convert_float_to_float16(onnx.load(path), keep_io_types=True), to)


def quantise(path: Path, to: Path, calibration: Pictures, exact: NDArray[np.float64], stem: int = 0) -> None:
    """Write `path` with 8 bits: weights by channel, activations in the ranges that images show.

    Static quantisation (Jacob et al., CVPR 2018) as ONNX Runtime does it. Small matrices stay in float32,
    among them the one that gives the months. Rounding shifts and shrinks the answers a little alike; the line
    that undoes it on the calibration images, by least squares, is the last step (docs/EXPORT.md).

    Args:
        path, to: files.
        calibration: images that show the ranges.
        exact: what `path` answers about them, float64 [N] in months.
        stem: convolutions, from the first, that stay in float32 too.
    """
    quantization = needed("onnxruntime.quantization", "precision=int8", "onnx")
    shapes = needed("onnxruntime.quantization.shape_inference", "precision=int8", "onnx")
    folded = to.with_suffix(".folded.onnx")
    with _quietly():
        shapes.quant_pre_process(str(path), str(folded), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(folded),
            str(to),
            _Feed(calibration),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,  # with signed ones x86 is twice as slow
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=_left_whole(folded, stem),
        )
    _put_right(to, *_line(answers(open_onnx(to), calibration, "calibrating"), exact))


def open_onnx(path: Path) -> Ask:
    """Return a file as ONNX Runtime runs it on the CPU, with as many threads as PyTorch."""
    runtime = needed("onnxruntime", "format=onnx", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image, male: session.run([_OUTPUT], {"image": image, "male": male})[0]


class _Feed:
    """Hands out images one at a time, as the calibration asks for them."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures, self.at = pictures, 0

    def get_next(self) -> dict[str, Any] | None:
        if self.at == len(self.pictures):
            return None
        one = slice(self.at, self.at + 1)
        self.at += 1
        return {"image": self.pictures.image[one], "male": self.pictures.male[one]}


def _line(rounded: NDArray[np.float64], exact: NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and height of the line from rounded to exact answers; of few the slope is 1."""
    slope = 1.0
    if len(exact) >= _FEWEST and rounded.std() > 1:
        slope = float(np.polyfit(rounded, exact, 1)[0])
    return slope, float(np.mean(exact - slope * rounded))


def _put_right(path: Path, slope: float, height: float) -> None:
    """Let a file's answers be slope · answer + height."""
    onnx = needed("onnx", "precision=int8", "onnx")
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = ["rounded_months" if name == _OUTPUT else name for name in node.output]
    for name, value in (("slope", slope), ("height", height)):
        tensor = onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [value])
        model.graph.initializer.append(tensor)
    model.graph.node.extend(
        [
            onnx.helper.make_node("Mul", ["rounded_months", "slope"], ["sloped_months"]),
            onnx.helper.make_node("Add", ["sloped_months", "height"], [_OUTPUT]),
        ]
    )
    onnx.save(model, path)


def _left_whole(path: Path, stem: int) -> list[str]:
    """Name the nodes that stay in float32."""
    onnx = needed("onnx", "precision=int8", "onnx")
    graph = onnx.load(path).graph
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    least = _LEFT * sum(sizes.values())
    matrices = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    small = [node for node in matrices if sum(sizes.get(name, 0) for name in node.input) < least]
    first = [node for node in graph.node if node.op_type == "Conv"][:stem]
    return [node.name for node in (*small, *first)]


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep the tools' notes to their developers from the user, whose answers are what counts."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
