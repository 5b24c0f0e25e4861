import numpy as np
import onnx
import pytest
from fixtures.tiny_bundle import affine_layers, images, network, ranges
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from floats_edge.deploy.quantize import MIN_IMAGES, calibrate, weight_scales
from floats_edge.errors import DataError
from floats_edge.method.fold import AffineLayer, Ends, Rule, affine, end_weights, weights_at
from floats_edge.runtime.lambda_weights import quantized


def random_layer(seed: int, rule: Rule) -> dict[str, AffineLayer]:
    random = np.random.default_rng(seed)
    mask = random.random((4, 3, 3, 3)) < 0.5
    vectors = {name: random.normal(size=4).astype(np.float32) for name in ("gain_clean", "gain_adv")}
    biases = {name: random.normal(size=4).astype(np.float32) for name in ("bias_clean", "bias_adv")}
    theta, noise = (np.where(mask, random.normal(size=mask.shape), 0).astype(np.float32) for _ in range(2))
    ends = Ends(theta=theta, mask=mask, noise=noise, noise_scale=np.float32(0.7), **vectors, **biases)
    return {"conv": affine(ends, rule)}


# Weights


@given(seed=st.integers(0, 2**32 - 1), lam=st.floats(0, 1), rule=st.sampled_from(["interpolate", "paper"]))
def test_the_scales_fit_at_every_lambda(seed, lam, rule):
    layers = random_layer(seed, rule)
    scale = weight_scales(end_weights(layers), ["conv.weight"])["conv.weight"]
    weight = weights_at(layers, lam)["conv.weight"]
    steps = np.abs(weight) / scale.reshape(-1, 1, 1, 1)
    assert steps.max() <= 127.001
    error = np.abs(quantized(weight, scale) * scale.reshape(-1, 1, 1, 1) - weight) / scale.reshape(-1, 1, 1, 1)
    assert error.max() <= 0.5001, "nothing is clipped: the error is that of rounding"


@pytest.mark.parametrize("seed", range(5))
def test_under_the_rule_paper_the_clean_weights_lie_apart_and_fit_too(seed):
    layers = random_layer(seed, "paper")
    scale = weight_scales(end_weights(layers), ["conv.weight"])["conv.weight"]
    clean = weights_at(layers, 0.0)["conv.weight"]
    assert np.abs(clean / scale.reshape(-1, 1, 1, 1)).max() <= 127.001


def test_no_smaller_scales_would_fit():
    layers = affine_layers()
    scale = weight_scales(end_weights(layers), ["stem.weight"])["stem.weight"]
    used = [np.abs(quantized(weights_at(layers, lam)["stem.weight"], scale)) for lam in (0.0, 1.0)]
    assert (np.max(used, axis=(0, 2, 3, 4)) == 127).all()


def test_a_channel_without_weights_stays_zero():
    weights = {"w": np.zeros((2, 3), np.float32)}
    scale = weight_scales([weights], ["w"])["w"]
    assert (scale > 0).all()
    assert not quantized(weights["w"], scale).any()


def test_masked_weights_stay_zero_at_every_lambda():
    layers = affine_layers()
    scale = network().scales(None)["stem.weight"]
    for lam in (0.0, 0.4, 1.0):
        weight = quantized(weights_at(layers, lam)["stem.weight"], scale)
        assert not weight[~layers["stem"].mask].any()


def test_the_classifier_stays_float():
    assert network().quantisable == ("stem",)
    graph = network().graph("bound", None, "int8", ranges()).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.input}
    assert types["stem.weight"] == onnx.TensorProto.INT8
    assert {types[name] for name in ("images", "stem.bias", "classifier.weight")} == {onnx.TensorProto.FLOAT}


# Activations


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_the_range_of_the_images_is_kept_whole(method):
    batch = images(MIN_IMAGES)
    assert calibrate(network().constant, ("images",), {0.0: [batch]}, method) == {"images": pytest.approx(batch.max())}


TWO = ("images", "between")


def two_convolutions() -> onnx.ModelProto:
    """images -> 1x1 convolution that copies -> ReLU -> the same again: both see the images."""
    eye = np.eye(3, dtype=np.float32).reshape(3, 3, 1, 1)
    nodes = [
        onnx.helper.make_node("Conv", ["images", "a"], ["first"]),
        onnx.helper.make_node("Relu", ["first"], ["between"]),
        onnx.helper.make_node("Conv", ["between", "a"], ["logits"]),
    ]
    value = onnx.helper.make_tensor_value_info
    shape = ["n", 3, 8, 8]
    graph = onnx.helper.make_graph(
        nodes,
        "two",
        [value("images", onnx.TensorProto.FLOAT, shape)],
        [value("logits", onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(eye, "a")],
    )
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)


@pytest.fixture
def with_outlier():
    """A bell of values up to about 1, and a single 40."""
    batch = np.abs(np.random.default_rng(0).normal(0, 0.25, (MIN_IMAGES, 3, 8, 8))).astype(np.float32)
    batch[7, 0, 0, 0] = 40
    return batch


@pytest.mark.parametrize("method", ["entropy", "percentile"])
def test_entropy_and_percentile_do_not_follow_an_outlier(method, with_outlier):
    found = calibrate(lambda lam: two_convolutions(), TWO, {0.0: [with_outlier]}, method)
    assert 0.5 < found["between"] < 5
    assert found["images"] == 40


def test_minmax_covers_every_lambda(with_outlier):
    by_lambda = {0.0: [images(MIN_IMAGES)], 1.0: [with_outlier[:100], with_outlier[100:]]}
    assert calibrate(lambda lam: two_convolutions(), TWO, by_lambda, "minmax") == {"images": 40, "between": 40}


def test_the_network_at_each_lambda_is_what_sees_its_images():
    asked = []

    def model_at(lam):
        asked.append(lam)
        return two_convolutions()

    calibrate(model_at, TWO, {0.0: [images(MIN_IMAGES)], 0.5: [images(MIN_IMAGES)]}, "minmax")
    assert set(asked) == {0.0, 0.5}


def test_too_few_images():
    with pytest.raises(DataError, match="499 images are too few") as caught:
        calibrate(network().constant, ("images",), {0.0: [images(MIN_IMAGES - 1)]}, "minmax")
    assert "500" in caught.value.fix


@pytest.mark.parametrize(
    "batch",
    [np.zeros((512, 3, 9, 8), np.float32), np.zeros((512, 1, 8, 8), np.float32), np.zeros((512, 3, 8, 8), np.uint8)],
    ids=["height", "channels", "type"],
)
def test_images_of_another_shape(batch):
    with pytest.raises(DataError, match=r"takes float32 images of shape \[3, 8, 8\]"):
        calibrate(network().constant, ("images",), {0.0: [batch]}, "minmax")
