"""Which layer costs most: on a network in which it is known."""

import numpy as np
import pytest
from fixtures.tiny_bundle import images, network

from floats_edge.deploy.lambda_graph import Network
from floats_edge.deploy.quantize import MIN_IMAGES, calibrate
from floats_edge.deploy.sensitivity import measure_sensitivity
from floats_edge.method.fold import Ends, affine


def chain(spread: float) -> Network:
    """The tiny network with a second convolution, one of whose inputs' weights is ``spread`` times the others.

    One scale per output channel must hold both: the small ones are rounded away.
    """
    import onnx
    from onnx import helper

    net = network()
    template = onnx.ModelProto()
    template.CopyFrom(net.template)
    second = helper.make_node("Conv", ["relu", "second.weight", "second.bias"], ["second"], pads=[1] * 4, name="second")
    template.graph.node.insert(2, second)
    template.graph.node[3].input[0] = "second"
    random = np.random.default_rng(3)
    theta = random.normal(size=(8, 8, 3, 3)).astype(np.float32)
    theta[:, 0] *= spread
    nothing, one = np.zeros(8, np.float32), np.ones(8, np.float32)
    ends = Ends(
        theta=theta,
        mask=np.ones(theta.shape, dtype=bool),
        noise=random.normal(size=theta.shape).astype(np.float32),
        noise_scale=np.float32(0.1),
        gain_clean=one,
        gain_adv=one,
        bias_clean=nothing,
        bias_adv=nothing,
    )
    return Network(template, {**net.layers, "second": affine(ends, "interpolate")})


@pytest.mark.parametrize("rule", ["any lambda", "one lambda"])
def test_the_layer_that_rounds_badly_comes_first(rule: str) -> None:
    net, lambdas = chain(spread=300), (0.0, 0.5, 1.0)
    ranges = calibrate(net.constant, net.int8.tensors, {lam: [images(MIN_IMAGES)] for lam in lambdas}, "minmax")
    scales_at = (lambda lam: net.scales(None)) if rule == "any lambda" else net.scales
    report = measure_sensitivity(net, ranges, scales_at, images(200), lambdas)
    assert [cost.layer for cost in report.layers] == ["second", "stem"]
    assert report.images == 200
    for costs in (*(layer.costs for layer in report.layers), report.together):
        assert tuple(cost.lam for cost in costs) == lambdas
        for cost in costs:
            assert 0 < cost.p50_error <= cost.p99_error <= cost.max_error
            assert 0 <= cost.top1_agreement <= 1


def test_the_others_stay_float() -> None:
    """With a range of the other layer that would ruin everything, the cost of the stem alone does not change."""
    net = chain(spread=1)
    ranges = calibrate(net.constant, net.int8.tensors, {0.5: [images(MIN_IMAGES)]}, "minmax")
    costs = []
    for range_of_second in (ranges["relu"], 1e-6):
        report = measure_sensitivity(net, {**ranges, "relu": range_of_second}, net.scales, images(64), (0.5,))
        costs.append({layer.layer: layer.costs for layer in report.layers})
    assert costs[0]["stem"] == costs[1]["stem"]
    assert costs[0]["second"] != costs[1]["second"]
