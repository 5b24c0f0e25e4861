"""Graphs of real bundles and the passes that made them, run on the real ONNX Runtime."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.deploy import onnx_graph
from floats_edge.errors import BackendError
from floats_edge.runtime.torch import TorchPredictor, run_predictor

EXPORTS = [(mode, precision) for mode in ("bound", "fixed", "bank") for precision in ("fp32", "fp16")]


def graphs(bundle: Bundle) -> list[onnx.ModelProto]:
    return [onnx.load_model_from_string(bundle.read(graph.file)) for graph in bundle.manifest.graphs]


def weight_names(bundle: Bundle) -> set[str]:
    return {f"{layer.name}.{kind}" for layer in bundle.manifest.layers for kind in ("weight", "bias")}


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


@pytest.fixture(scope="module")
def predictor(digits_run: TrainingRun) -> TorchPredictor:
    return run_predictor(digits_run)


@pytest.fixture(scope="module")
def traced(predictor: TorchPredictor) -> onnx.ModelProto:
    """The network at lambda 0; tests must not change it."""
    return onnx_graph.trace(predictor.network, predictor.image_shape)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).random((3, 1, 8, 8), dtype=np.float32)


class TestBundled:
    @pytest.mark.parametrize(("mode", "precision"), EXPORTS)
    def test_runs_on_what_boards_have(self, bundles: Callable[..., Bundle], mode: str, precision: str) -> None:
        for model in graphs(bundles(mode, precision)):
            onnx.checker.check_model(model, full_check=True)
            assert [(opset.domain, opset.version) for opset in model.opset_import if not opset.domain] == [("", 18)]
            assert model.ir_version <= 10
            assert not [node.op_type for node in model.graph.node if "Random" in node.op_type]
            assert not [node.op_type for node in model.graph.node if node.domain]
            assert not model.functions

    @pytest.mark.parametrize(("mode", "precision"), EXPORTS)
    def test_images_and_logits_are_float32_with_a_free_batch(
        self, bundles: Callable[..., Bundle], mode: str, precision: str
    ) -> None:
        for model in graphs(bundles(mode, precision)):
            image, logits = model.graph.input[0], model.graph.output[0]
            assert (image.name, logits.name) == ("images", "logits")
            assert len(model.graph.output) == 1
            for value, sizes in ((image, [1, 8, 8]), (logits, [10])):
                batch, *rest = value.type.tensor_type.shape.dim
                assert value.type.tensor_type.elem_type == TensorProto.FLOAT
                assert batch.dim_param
                assert [dim.dim_value for dim in rest] == sizes

    @pytest.mark.parametrize("precision", ["fp32", "fp16"])
    def test_bound_holds_no_weight(self, bundles: Callable[..., Bundle], precision: str) -> None:
        bundle = bundles("bound", precision)
        (model,) = graphs(bundle)
        wanted = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
        inputs = {value.name: value.type.tensor_type for value in model.graph.input[1:]}
        assert inputs.keys() == weight_names(bundle)
        shapes = {f"{layer.name}.weight": layer.shape for layer in bundle.manifest.layers}
        for name, tensor in inputs.items():
            assert tensor.elem_type == wanted
            if name in shapes:
                assert tuple(dim.dim_value for dim in tensor.shape.dim) == shapes[name]
        initializers = {t.name: numpy_helper.to_array(t).size for t in model.graph.initializer}
        assert not initializers.keys() & weight_names(bundle)
        assert max(initializers.values()) <= 16, "mean, std and axes are all that is left"

    @pytest.mark.parametrize(("mode", "precision"), [e for e in EXPORTS if e[0] != "bound"])
    def test_fixed_and_bank_hold_every_weight_by_name(
        self, bundles: Callable[..., Bundle], mode: str, precision: str
    ) -> None:
        bundle = bundles(mode, precision)
        wanted = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
        for model in graphs(bundle):
            assert [value.name for value in model.graph.input] == ["images"]
            types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
            assert {types[name] for name in weight_names(bundle)} == {wanted}

    @pytest.mark.parametrize(("mode", "precision"), EXPORTS)
    def test_says_what_it_is_without_the_manifest(
        self, bundles: Callable[..., Bundle], mode: str, precision: str
    ) -> None:
        bundle = bundles(mode, precision)
        for model, graph in zip(graphs(bundle), bundle.manifest.graphs, strict=True):
            properties = {prop.key.removeprefix("floats_edge."): prop.value for prop in model.metadata_props}
            assert model.producer_name == "floats-edge"
            assert properties["lambda_mode"] == mode
            assert properties["precision"] == precision
            assert properties["network"] == "resnet8, width 8, stem_stride 1"
            assert json.loads(properties["labels"]) == list("0123456789")
            assert properties["lambda"] == (
                "any in [0, 1]: weights are inputs" if graph.lam is None else f"{graph.lam:g}"
            )

    @pytest.mark.parametrize(("mode", "precision"), EXPORTS)
    def test_tells_nothing_of_the_machine_that_made_it(
        self, bundles: Callable[..., Bundle], mode: str, precision: str
    ) -> None:
        bundle = bundles(mode, precision)
        places = (sys.prefix, str(Path.home()), str(Path.cwd()), str(bundle.path.parent), "site-packages", ".py")
        for graph in bundle.manifest.graphs:
            data = bundle.read(graph.file)
            assert [place for place in places if place.encode() in data] == []


class TestTrace:
    def test_computes_what_the_network_does(
        self, traced: onnx.ModelProto, predictor: TorchPredictor, images: np.ndarray
    ) -> None:
        predictor.set_lambda(0.0)
        for count in (1, 3):
            np.testing.assert_allclose(
                run(traced, {"images": images[:count]}), predictor.predict(images[:count]), rtol=1e-4, atol=1e-4
            )

    def test_keeps_the_name_of_every_weight(self, traced: onnx.ModelProto, predictor: TorchPredictor) -> None:
        initializers = {tensor.name for tensor in traced.graph.initializer}
        assert {name for name, _ in predictor.network.named_parameters()} <= initializers

    def test_a_weight_that_gets_lost_is_an_error(self, predictor: TorchPredictor) -> None:
        """As when an exporter folds or renames it."""
        import torch

        class Careless(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.network = predictor.network
                self.forgotten = torch.nn.Parameter(torch.ones(3), requires_grad=False)

            def forward(self, images: torch.Tensor) -> torch.Tensor:
                return self.network(images)

        with pytest.raises(BackendError, match="renamed or removed forgotten"):
            onnx_graph.trace(Careless(), predictor.image_shape)


class TestPasses:
    def test_with_weights_replaces(
        self, traced: onnx.ModelProto, predictor: TorchPredictor, images: np.ndarray
    ) -> None:
        weights = {n: p.numpy() * np.float32(0.5) for n, p in predictor.network.named_parameters()}
        model = onnx_graph.with_weights(traced, weights)
        tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        assert len(tensors) == len(model.graph.initializer) == len(traced.graph.initializer)
        for name, weight in weights.items():
            np.testing.assert_array_equal(numpy_helper.to_array(tensors[name]), weight)
        assert not np.allclose(run(model, {"images": images}), run(traced, {"images": images}))

    def test_there_and_back_again(self, traced: onnx.ModelProto, predictor: TorchPredictor, images: np.ndarray) -> None:
        weights = {name: parameter.numpy() for name, parameter in predictor.network.named_parameters()}
        bound = onnx_graph.with_weight_inputs(traced, list(weights))
        wanted = run(traced, {"images": images})
        np.testing.assert_allclose(run(bound, {"images": images, **weights}), wanted, rtol=1e-4, atol=1e-5)
        again = onnx_graph.with_weights(bound, weights)
        assert [value.name for value in again.graph.input] == ["images"]
        np.testing.assert_allclose(run(again, {"images": images}), wanted, rtol=1e-4, atol=1e-5)

    def test_fp16_halves_the_weights_and_keeps_the_answers(self, traced: onnx.ModelProto, images: np.ndarray) -> None:
        half = onnx_graph.to_fp16(traced)
        wanted = run(traced, {"images": images})
        error = np.abs(run(half, {"images": images}) - wanted).max() / np.ptp(wanted)
        assert 0 < error < 1e-2
        assert half.ByteSize() < 0.6 * traced.ByteSize()

    def test_a_pass_leaves_its_input_alone(self, traced: onnx.ModelProto, predictor: TorchPredictor) -> None:
        before = traced.SerializeToString(deterministic=True)
        names = [name for name, _ in predictor.network.named_parameters()]
        onnx_graph.with_weights(traced, {name: np.zeros(1, np.float32) for name in names})
        onnx_graph.with_weight_inputs(traced, names)
        onnx_graph.to_fp16(traced)
        onnx_graph.finished(traced, {"a": "b"})
        assert traced.SerializeToString(deterministic=True) == before

    def test_finished_refuses_a_graph_that_is_none(self, traced: onnx.ModelProto) -> None:
        broken = onnx.ModelProto()
        broken.CopyFrom(traced)
        broken.graph.node[0].op_type = "NoSuchOperator"
        with pytest.raises(onnx.checker.ValidationError):
            onnx_graph.finished(broken, {})
