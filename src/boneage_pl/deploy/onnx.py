"""ONNX export, float16 and int8."""

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

from boneage_pl.deploy.export_module import ExportModule, PredictFn, translate_export_errors
from boneage_pl.deploy.verification_set import ImageBatch
from boneage_pl.deploy.verify import predict_images
from boneage_pl.errors import BoneAgeError
from boneage_pl.utils.optional import import_optional
from boneage_pl.utils.processes import cores

OPSET, IR_VERSION = 17, 8  # that ONNX Runtime takes from 1.16 on, and in browsers
EXPORTED_OPSET = 18  # PyTorch's exporter writes it without a conversion
MAX_PROTOBUF_BYTES = 1.9e9  # a file is one protocol buffer, which holds 2 GiB
_INPUTS, _OUTPUT = ("image", "male"), "months"
_FLOAT32_OPS = (
    0.01  # of all numbers: a matrix with fewer gains nothing from 8 bits, and the last one loses by it
)
NUM_FLOAT32_CONVS = (
    5  # convolutions that stay whole where all in 8 bits cost too much; our choice, see docs/EXPORT.md
)
_MIN_CALIBRATION = 20  # predictions that a slope is fitted to


def needs_onnx() -> None:
    """Raise `BoneAgeError` unless what writes, changes and runs ONNX files is installed."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        import_optional(module, "format=onnx", "onnx")


def write_onnx(model: ExportModule, path: Path) -> None:
    """Write a model in float32, whose batch may have any size.

    Raises:
        BoneAgeError: it is too large for a file.
    """
    if model.bytes > MAX_PROTOBUF_BYTES:
        raise BoneAgeError(
            f"the model takes {model.bytes / 1e9:.1f} GB in float32, and an ONNX file holds 2:\n"
            "export fewer checkpoints together, or each by itself."
        )
    any_batch = {0: torch.export.Dim.DYNAMIC}
    with _silence_onnxruntime(), translate_export_errors("format=onnx"):
        program = torch.onnx.export(
            model,
            model.example(),
            dynamo=True,
            dynamic_shapes={"image": any_batch, "male": any_batch},
            input_names=list(_INPUTS),
            output_names=[_OUTPUT],
            opset_version=EXPORTED_OPSET,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    with _silence_onnxruntime():
        program.save(path)


def finish_onnx(path: Path, metadata: Mapping[str, str]) -> None:
    """Add a file's metadata, name the size that varies, and let older runtimes take it.

    Opset 17 and IR 8 where all operators are of these; domains that no operator is of are not named.
    """
    onnx = import_optional("onnx", "format=onnx", "onnx")
    tools = import_optional("onnxruntime.transformers.onnx_model", "format=onnx", "onnx")
    model = onnx.load(path)
    with _silence_onnxruntime():
        tools.OnnxModel(model).topological_sort()  # a conversion to float16 leaves them in disorder
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    for of_graph in (model.graph.input, model.graph.output):
        for value in of_graph:
            value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for node in model.graph.node:  # the exporter's notes, with the paths of this machine's files
        del node.metadata_props[:]
    own = [node for node in model.graph.node if node.domain in ("", "ai.onnx")]
    since = max(onnx.defs.get_schema(node.op_type, EXPORTED_OPSET).since_version for node in own)
    domains = {node.domain for node in model.graph.node}
    kept = [o for o in model.opset_import if o.domain in domains and o.domain != ""]
    del model.opset_import[:]
    model.opset_import.extend([onnx.helper.make_opsetid("", max(since, OPSET)), *kept])
    model.ir_version = IR_VERSION
    onnx.save(model, path)


def convert_to_float16(path: Path, to: Path) -> None:
    """Write `path` with numbers of 16 bits, which are computed with too where the hardware can."""
    onnx = import_optional("onnx", "precision=float16", "onnx")
    float16 = import_optional("onnxruntime.transformers.float16", "precision=float16", "onnx")
    with _silence_onnxruntime():
        onnx.save(float16.convert_float_to_float16(onnx.load(path), keep_io_types=True), to)


def quantize_int8(
    path: Path, to: Path, calibration: ImageBatch, exact: NDArray[np.float64], stem: int = 0
) -> None:
    """Write `path` with 8 bits: weights by channel, activations in the ranges that images show.

    Static quantization (Jacob et al., CVPR 2018) as ONNX Runtime does it. Small matrices stay in float32,
    among them the one that gives the months. Rounding shifts and shrinks all predictions a little alike; the
    line that undoes it on the calibration images, by least squares, is the last step (docs/EXPORT.md).

    Args:
        path, to: files.
        calibration: images that show the ranges.
        exact: what `path` predicts of them, float64 [N] in months.
        stem: convolutions, from the first, that stay in float32 too.
    """
    quantization = import_optional("onnxruntime.quantization", "precision=int8", "onnx")
    shapes = import_optional("onnxruntime.quantization.shape_inference", "precision=int8", "onnx")
    folded = to.with_suffix(".folded.onnx")
    with _silence_onnxruntime():
        shapes.quant_pre_process(str(path), str(folded), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(folded),
            str(to),
            _CalibrationReader(calibration),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,  # with signed ones x86 is twice as slow
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=float32_nodes(folded, stem),
        )
    append_linear_correction(
        to, *fit_linear_correction(predict_images(open_onnx(to), calibration, "calibrating"), exact)
    )


def open_onnx(path: Path) -> PredictFn:
    """Return a file as ONNX Runtime runs it on the CPU, with as many threads as PyTorch."""
    runtime = import_optional("onnxruntime", "format=onnx", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image, male: session.run([_OUTPUT], {"image": image, "male": male})[0]


class _CalibrationReader:
    """Yields images one at a time, as ONNX Runtime's calibration reads them."""

    def __init__(self, images: ImageBatch) -> None:
        self.images, self.at = images, 0

    def get_next(self) -> dict[str, Any] | None:
        if self.at == len(self.images):
            return None
        one = slice(self.at, self.at + 1)
        self.at += 1
        return {"image": self.images.image[one], "male": self.images.male[one]}


def fit_linear_correction(rounded: NDArray[np.float64], exact: NDArray[np.float64]) -> tuple[float, float]:
    """Return slope and height of the line from rounded to exact predictions; of few the slope is 1."""
    slope = 1.0
    if len(exact) >= _MIN_CALIBRATION and rounded.std() > 1:
        slope = float(np.polyfit(rounded, exact, 1)[0])
    return slope, float(np.mean(exact - slope * rounded))


def append_linear_correction(path: Path, slope: float, height: float) -> None:
    """Append slope · months + height to a file."""
    onnx = import_optional("onnx", "precision=int8", "onnx")
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


def float32_nodes(path: Path, stem: int) -> list[str]:
    """Name the nodes that stay in float32."""
    onnx = import_optional("onnx", "precision=int8", "onnx")
    graph = onnx.load(path).graph
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    least = _FLOAT32_OPS * sum(sizes.values())
    matrices = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    small = [node for node in matrices if sum(sizes.get(name, 0) for name in node.input) < least]
    first = [node for node in graph.node if node.op_type == "Conv"][:stem]
    return [node.name for node in (*small, *first)]


@contextmanager
def _silence_onnxruntime() -> Iterator[None]:
    """Silence the tools' notes to their developers."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
