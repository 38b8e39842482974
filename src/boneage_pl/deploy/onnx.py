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

OPSET, IR_VERSION = 17, 8  # supported by ONNX Runtime ≥ 1.16 and in browsers
EXPORTED_OPSET = 18  # native opset of PyTorch's exporter
MAX_PROTOBUF_BYTES = 1.9e9  # limit of a protocol buffer: 2 GiB
_INPUTS, _OUTPUT = ("image", "male"), "months"
# Matrices with a smaller share of the weights stay in float32: int8 gains nothing, and hurts the last one.
_MIN_INT8_SHARE = 0.01
_MIN_CALIBRATION = 20  # predictions needed to fit a slope


def needs_onnx() -> None:
    """Raise `BoneAgeError` unless the ONNX packages are installed."""
    for module in ("onnx", "onnxscript", "onnxruntime"):
        import_optional(module, "format=onnx", "onnx")


def write_onnx(model: ExportModule, path: Path) -> None:
    """Write a float32 model with a dynamic batch size.

    Raises:
        BoneAgeError: the model is too large for one file.
    """
    if model.bytes > MAX_PROTOBUF_BYTES:
        raise BoneAgeError(
            f"the model takes {model.bytes / 1e9:.1f} GB in float32; an ONNX file holds at most 2.\n"
            "Export fewer checkpoints together, or each separately."
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
    """Add metadata, name the batch dimension and lower opset and IR version for older runtimes.

    Opset 17 and IR 8 if all operators are in them; unused domains are dropped.
    """
    onnx = import_optional("onnx", "format=onnx", "onnx")
    tools = import_optional("onnxruntime.transformers.onnx_model", "format=onnx", "onnx")
    model = onnx.load(path)
    with _silence_onnxruntime():
        tools.OnnxModel(model).topological_sort()  # the float16 conversion leaves nodes unsorted
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    for node in model.graph.node:  # debug notes with local paths
        del node.metadata_props[:]
    standard = [node for node in model.graph.node if node.domain in ("", "ai.onnx")]
    since = max(onnx.defs.get_schema(node.op_type, EXPORTED_OPSET).since_version for node in standard)
    domains = {node.domain for node in model.graph.node}
    used = [o for o in model.opset_import if o.domain in domains and o.domain != ""]
    del model.opset_import[:]
    model.opset_import.extend([onnx.helper.make_opsetid("", max(since, OPSET)), *used])
    model.ir_version = IR_VERSION
    onnx.save(model, path)


def convert_to_float16(path: Path, to: Path) -> None:
    """Convert the file `path` to float16; inputs and outputs keep their types."""
    onnx = import_optional("onnx", "precision=float16", "onnx")
    float16 = import_optional("onnxruntime.transformers.float16", "precision=float16", "onnx")
    with _silence_onnxruntime():
        onnx.save(float16.convert_float_to_float16(onnx.load(path), keep_io_types=True), to)


def quantize_int8(path: Path, to: Path, calibration: ImageBatch, exact: NDArray[np.float64]) -> None:
    """Quantize the file `path` to int8: weights per channel, activations by ranges from calibration images.

    Static quantization (Jacob et al., CVPR 2018) in ONNX Runtime. Small matrices stay in float32, among
    them the last layer. Quantization shifts and shrinks all predictions slightly; a final linear correction,
    fitted by least squares on the calibration images, undoes it (docs/EXPORT.md).

    Args:
        path, to: input and output file.
        calibration: calibration images.
        exact: predictions of `path` for them, float64 [N] in months.
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
            activation_type=quantization.QuantType.QUInt8,  # QInt8 is twice as slow on x86
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=float32_nodes(folded),
        )
    append_linear_correction(
        to, *fit_linear_correction(predict_images(open_onnx(to), calibration, "calibrating"), exact)
    )


def open_onnx(path: Path) -> PredictFn:
    """Return the prediction function of a file, run by ONNX Runtime on all cores."""
    runtime = import_optional("onnxruntime", "format=onnx", "onnx")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = cores()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda image, male: session.run([_OUTPUT], {"image": image, "male": male})[0]


class _CalibrationReader:
    """ONNX Runtime's interface for calibration data, one image at a time."""

    def __init__(self, images: ImageBatch) -> None:
        self.images, self.at = images, 0

    def get_next(self) -> dict[str, Any] | None:
        if self.at == len(self.images):
            return None
        one = slice(self.at, self.at + 1)
        self.at += 1
        return {"image": self.images.image[one], "male": self.images.male[one]}


def fit_linear_correction(rounded: NDArray[np.float64], exact: NDArray[np.float64]) -> tuple[float, float]:
    """Fit exact = slope · rounded + offset; with few predictions the slope is 1."""
    slope = 1.0
    if len(exact) >= _MIN_CALIBRATION and rounded.std() > 1:
        slope = float(np.polyfit(rounded, exact, 1)[0])
    return slope, float(np.mean(exact - slope * rounded))


def append_linear_correction(path: Path, slope: float, offset: float) -> None:
    """Append slope · months + offset to a file."""
    onnx = import_optional("onnx", "precision=int8", "onnx")
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = ["rounded_months" if name == _OUTPUT else name for name in node.output]
    for name, value in (("slope", slope), ("offset", offset)):
        tensor = onnx.helper.make_tensor(name, onnx.TensorProto.FLOAT, [], [value])
        model.graph.initializer.append(tensor)
    model.graph.node.extend(
        [
            onnx.helper.make_node("Mul", ["rounded_months", "slope"], ["sloped_months"]),
            onnx.helper.make_node("Add", ["sloped_months", "offset"], [_OUTPUT]),
        ]
    )
    onnx.save(model, path)


def float32_nodes(path: Path) -> list[str]:
    """Return the names of the small matrix multiplications, which stay in float32."""
    onnx = import_optional("onnx", "precision=int8", "onnx")
    graph = onnx.load(path).graph
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in graph.initializer}
    smallest = _MIN_INT8_SHARE * sum(sizes.values())
    matrices = [node for node in graph.node if node.op_type in ("Gemm", "MatMul")]
    return [node.name for node in matrices if sum(sizes.get(name, 0) for name in node.input) < smallest]


@contextmanager
def _silence_onnxruntime() -> Iterator[None]:
    """Suppress warnings and output of the ONNX tools."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
