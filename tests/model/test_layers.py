from pathlib import Path

import pytest
import timm
import torch

from boneage_pl.model.backbones import create_backbone
from boneage_pl.model.layers import DepthwiseConv2d, SameConv2d


@pytest.mark.parametrize("size", [1, 2, 5, 8, 15, 16])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 1), (2, 2), (5, 3)])
def test_same_convolution_is_timms(size: int, kernel: int, stride: int):
    theirs = timm.layers.Conv2dSame(4, 6, kernel, stride, groups=2)
    ours = SameConv2d(4, 6, kernel, stride, groups=2)
    ours.load_state_dict(theirs.state_dict())
    image = torch.rand(2, 4, size, size + 1)
    torch.testing.assert_close(ours(image), theirs(image))


@pytest.mark.parametrize("side", [96, 97])
def test_network_in_same_padding_is_timms(side: int):
    theirs = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    ours, _ = create_backbone("tf_efficientnet_lite0", 3, None, False, {})
    ours.eval().load_state_dict(theirs.state_dict())
    image = torch.rand(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image))
    assert sum(isinstance(m, SameConv2d) for m in ours.modules()) == 5


def test_depthwise_convolution_is_trained_in_float32_and_predicts_in_bfloat16():
    network, _ = create_backbone("tf_efficientnet_lite0", 3, None, False, {})
    depthwise = [m for m in network.modules() if isinstance(m, DepthwiseConv2d)]
    assert len(depthwise) == sum(getattr(m, "groups", 1) > 1 for m in network.modules()) == 16
    layer = depthwise[0]
    image = torch.rand(2, layer.in_channels, 9, 9).bfloat16()
    exact = layer(image.float())
    exact.sum().backward()
    gradient, layer.weight.grad = layer.weight.grad, None
    with torch.autocast("cpu", torch.bfloat16):
        trained = layer(image)
        with torch.no_grad():
            predicted = layer(image)
    trained.sum().backward()
    assert torch.equal(trained, exact.bfloat16())
    assert torch.equal(layer.weight.grad, gradient)
    assert predicted.dtype == torch.bfloat16
    torch.testing.assert_close(predicted, trained, atol=0.01, rtol=0.02)


@pytest.mark.slow
def test_same_padding_is_folded_in_onnx(tmp_path: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    network, _ = create_backbone("tf_efficientnet_lite0", 3, None, False, {})
    image = torch.rand(2, 3, 64, 64)
    torch.onnx.export(network.eval(), (image,), tmp_path / "x.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(found), network(image))
    assert b"Pad" not in (tmp_path / "x.onnx").read_bytes()
