"""TensorRT in every lambda mode at every precision, on a stand-in."""

import dataclasses
import importlib
import json
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from fixtures.tiny_bundle import MODES_AND_PRECISIONS, add_engine, affine_layers, engine_entry, images, write_bundle

from floats_edge.artifacts.bundle import Bundle, file_entries, open_bundle, write_manifest
from floats_edge.artifacts.files import pack_tensors, write_atomic
from floats_edge.artifacts.weights import pack_weights
from floats_edge.deploy.calibrate import Int8Request
from floats_edge.deploy.export import ExportRequest, export
from floats_edge.errors import ArtifactError, BackendError, ParityError
from floats_edge.runtime.lambda_weights import bundle_weights
from floats_edge.runtime.ort import open_ort
from floats_edge.runtime.trt import open_trt

LAMBDAS = (0.0, 0.3, 1.0, 0.0, 0.7)
VALUES = {"fixed": (0.3,), "bank": (0.0, 0.3, 1.0)}


def make(folder, mode: str, precision: str) -> Bundle:
    return write_bundle(folder, VALUES.get(mode), precision, mode)


@pytest.fixture
def trt(fake_driver):
    return importlib.import_module("tensorrt")


def with_engines(
    bundle: Bundle,
    refittable: tuple[str, ...] | None = None,
    change: Callable[[onnx.GraphProto], object] = lambda _: None,
) -> Bundle:
    """The bundle with a plan for each graph, built from it after a change."""
    refits = bundle.manifest.lam.mode == "refit"
    header: list[object] = [1, 8]
    if refits:
        header.append(list(bundle_weights(bundle).varying if refittable is None else refittable))
    for graph in bundle.manifest.graphs:
        model = onnx.load_model_from_string(bundle.read(graph.file))
        change(model.graph)
        plan = json.dumps(header).encode() + b"\n" + model.SerializeToString()
        engine = engine_entry(f"{graph.file}.plan", lam=graph.lam, precision=bundle.manifest.precision)
        bundle = add_engine(bundle, engine, plan)
    return bundle


@pytest.mark.parametrize(("mode", "precision"), MODES_AND_PRECISIONS)
def test_tensorrt_computes_what_onnx_runtime_does(trt, tmp_path, mode, precision):
    bundle = with_engines(make(tmp_path / "bundle", mode, precision))
    lambdas = VALUES.get(mode, LAMBDAS)
    with open_trt(bundle, lambdas[0]) as predictor, open_ort(bundle, "ort-cpu", lambdas[0]) as reference:
        for lam in (*lambdas, *lambdas):
            predictor.set_lambda(lam)
            reference.set_lambda(lam)
            wanted = reference.predict(images(11))
            assert np.abs(predictor.predict(images(11)) - wanted).max() <= 1e-5 * np.ptp(wanted)


def test_what_int8_keeps_in_fp16_is_bound_in_fp16(trt, bundles, digits, tmp_path):
    request = ExportRequest("runtime", "int8", int8=Int8Request(keep=("stem",), keep_precision="fp16"))
    bundle = with_engines(export(bundles("bound").path, tmp_path / "bundle", request))
    pixels = digits.validation.first(8).as_float()
    with open_trt(bundle, 0.0) as predictor, open_ort(bundle, "ort-cpu", 0.0) as reference:
        for lam in LAMBDAS:
            predictor.set_lambda(lam)
            reference.set_lambda(lam)
            wanted = reference.predict(pixels)
            assert np.abs(predictor.predict(pixels) - wanted).max() <= 1e-5 * np.ptp(wanted)


@pytest.mark.parametrize("mode", ["bound", "refit"])
def test_a_network_that_is_the_same_at_every_lambda(trt, tmp_path, monkeypatch, mode):
    monkeypatch.setattr("floats_edge.runtime.trt.check_golden", lambda *_: None)  # they are of other weights
    bundle = make(tmp_path / "bundle", mode, "fp32")
    layers = {
        name: dataclasses.replace(
            layer,
            **{slope: getattr(layer, slope) * 0 for slope in ("gain_slope", "noise_slope", "bias_slope")},
            gain_base=layer.gain_clean,
            bias_base=layer.bias_clean,
        )
        for name, layer in affine_layers().items()
    }
    write_atomic(bundle.path / "weights.safetensors", pack_tensors(pack_weights(layers)))
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"files": file_entries(bundle.path)}))
    with open_trt(with_engines(open_bundle(bundle.path)), 0.0) as predictor:
        before = predictor.predict(images(2))
        predictor.set_lambda(0.7)
        assert np.array_equal(predictor.predict(images(2)), before)


def test_refitting_keeps_the_mask(trt, tmp_path):
    with open_trt(with_engines(make(tmp_path / "bundle", "refit", "fp32")), 0.7) as predictor:
        model = predictor._engines[None].engine.model
        weight = next(t for t in model.graph.initializer if t.name == "stem.weight")
        assert np.array_equal(onnx.numpy_helper.to_array(weight) != 0, affine_layers()["stem"].mask)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
@pytest.mark.parametrize(("behaviour", "location"), [("", "DEVICE"), ("host only", "HOST")])
def test_weights_are_handed_over_in_device_memory_where_tensorrt_takes_them_there(
    trt, tmp_path, monkeypatch, caplog, fake_driver, behaviour, location, precision
):
    monkeypatch.setenv("FAKE_TENSORRT", behaviour)
    bundle = with_engines(make(tmp_path / "bundle", "refit", precision))
    with open_trt(bundle, 0.3) as predictor, open_ort(bundle, "ort-cpu", 0.3) as reference:
        live = dict(fake_driver.live)
        for lam in LAMBDAS:
            predictor.set_lambda(lam)
            reference.set_lambda(lam)
            wanted = reference.predict(images(3))
            assert np.abs(predictor.predict(images(3)) - wanted).max() <= 1e-5 * np.ptp(wanted)
        assert fake_driver.live == live
    assert trt.LOCATIONS
    assert all(places == {location} for places in trt.LOCATIONS)
    assert ("refitting through host memory" in caplog.text) == (location == "HOST")


def test_an_engine_that_refits_in_part_and_says_nothing_is_found_out_when_it_is_opened(trt, tmp_path, monkeypatch):
    bundle = with_engines(make(tmp_path / "bundle", "refit", "fp32"))
    with open_trt(bundle, 1.0) as predictor:
        assert predictor.lam == 1.0
    monkeypatch.setenv("FAKE_TENSORRT", "refit in part")
    with pytest.raises(ParityError, match=r"trt at lambda 0.5 differs from the golden logits") as caught:
        open_trt(bundle, 0.0)
    assert "--trt" in caught.value.fix


@pytest.mark.parametrize("mode", ["bound", "refit"])
@pytest.mark.parametrize("damage", ["missing", "extra", "other shape"])
def test_weights_that_do_not_fit_are_refused_before_an_engine_is_deserialised(trt, tmp_path, mode, damage):
    """The file is listed with its right hash: whoever wrote it made the mistake."""
    bundle = with_engines(make(tmp_path / "bundle", mode, "fp32"))
    tensors = bundle.tensors("weights.safetensors")
    if damage == "missing":
        del tensors["stem.gain_slope"]
    elif damage == "extra":
        tensors["stem.gain_other"] = tensors["stem.gain_slope"]
    else:
        tensors["stem.gain_slope"] = tensors["stem.gain_slope"][:-1]
    write_atomic(bundle.path / "weights.safetensors", pack_tensors(tensors))
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"files": file_entries(bundle.path)}))
    with pytest.raises(ArtifactError, match=r"the weights do not fit the manifest: stem\.gain_"):
        open_trt(open_bundle(bundle.path), 0.5)
    assert trt.DESERIALISED == []


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("forget", "it also wants stem.bias"),
        ("refit fails", "failed to refit the engine to lambda 0.7"),
    ],
)
def test_a_failed_refit_leaves_the_predictor_broken(trt, tmp_path, monkeypatch, behaviour, message):
    bundle = with_engines(make(tmp_path / "bundle", "refit", "fp32"))
    with open_trt(bundle, 0.3) as predictor:
        monkeypatch.setenv("FAKE_TENSORRT", behaviour)
        with pytest.raises(BackendError, match=message):
            predictor.set_lambda(0.7)
        monkeypatch.delenv("FAKE_TENSORRT")
        for use in (lambda: predictor.predict(images(1)), lambda: predictor.set_lambda(0.5)):
            with pytest.raises(BackendError, match="failed half-way") as caught:
                use()
            assert "open the bundle again" in caught.value.fix
        assert predictor.lam == 0.3


def test_weights_that_tensorrt_takes_from_nowhere_are_named(trt, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_TENSORRT", "reject")
    with pytest.raises(BackendError, match=r"does not accept stem\.bias, classifier\.bias to be refitted"):
        open_trt(with_engines(make(tmp_path / "bundle", "refit", "fp32")), 0.3)


@pytest.mark.parametrize("behaviour", ["", "host only"])
def test_turning_the_knob_hands_nothing_more_to_the_refitter(trt, tmp_path, monkeypatch, behaviour):
    """What it is handed lives until its end."""
    monkeypatch.setenv("FAKE_TENSORRT", behaviour)
    with open_trt(with_engines(make(tmp_path / "bundle", "refit", "fp32")), 0.3) as predictor:
        handed = len(predictor._lambda._refitter.kept)
        for lam in LAMBDAS:
            predictor.set_lambda(lam)
        assert len(predictor._lambda._refitter.kept) == handed


@pytest.mark.parametrize("marked", [("stem.weight",), ("stem.weight", "stem.bias", "classifier.weight", "extra")])
def test_an_engine_that_refits_other_weights_is_refused(trt, tmp_path, marked):
    bundle = with_engines(make(tmp_path / "bundle", "refit", "fp32"), marked)
    with pytest.raises(ArtifactError, match=r"cannot be refitted to another lambda: .*classifier.bias") as caught:
        open_trt(bundle, 0.3)
    assert "--trt" in caught.value.fix
    assert trt.LOCATIONS == []


def test_an_engine_whose_weights_are_of_another_size_is_refused(trt, tmp_path, monkeypatch):
    bundle = with_engines(make(tmp_path / "bundle", "refit", "fp32"))
    monkeypatch.setenv("FAKE_TENSORRT", "other size")
    with pytest.raises(ArtifactError, match=r"classifier.bias, .* of another size or type"):
        open_trt(bundle, 0.3)


def wider(name: str, axis: int) -> Callable[[onnx.GraphProto], object]:
    """A tensor that goes in or out, of one more along an axis."""

    def change(graph: onnx.GraphProto) -> None:
        value = next(value for value in (*graph.input, *graph.output) if value.name == name)
        value.type.tensor_type.shape.dim[axis].dim_value += 1

    return change


def renamed(old: str, new: str) -> Callable[[onnx.GraphProto], object]:
    def change(graph: onnx.GraphProto) -> None:
        for value in (*graph.input, *graph.output):
            value.name = new if value.name == old else value.name
        for node in graph.node:
            node.input[:] = [new if name == old else name for name in node.input]
            node.output[:] = [new if name == old else name for name in node.output]

    return change


def half(graph: onnx.GraphProto) -> None:
    graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    graph.node[-1].output[0] = "wide"
    graph.node.append(onnx.helper.make_node("Cast", ["wide"], ["logits"], to=onnx.TensorProto.FLOAT16))


def another_input(graph: onnx.GraphProto) -> None:
    graph.input.append(onnx.helper.make_tensor_value_info("another", onnx.TensorProto.FLOAT, [1]))


def lambdas(graph: onnx.GraphProto) -> None:
    """A lambda for each of two images."""
    value = next(value for value in graph.input if value.name == "lambda")
    value.CopyFrom(onnx.helper.make_tensor_value_info("lambda", onnx.TensorProto.FLOAT, [1]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (wider("images", 3), "images"),
        (renamed("images", "pictures"), "images"),
        (renamed("logits", "scores"), "logits"),
        (half, "logits"),
    ],
    ids=["wider images", "images renamed", "logits renamed", "logits in half precision"],
)
@pytest.mark.parametrize("mode", ["fixed", "bank", "bound", "input", "refit"])
def test_an_engine_that_takes_or_gives_something_else_is_refused(trt, tmp_path, mode, change, told):
    bundle = with_engines(make(tmp_path / "bundle", mode, "fp32"), change=change)
    message = f"an engine of .*bundle is not the one of its manifest: {told}"
    with pytest.raises(ArtifactError, match=message) as caught:
        open_trt(bundle, VALUES.get(mode, LAMBDAS)[0])
    assert caught.value.fix == f"floats-edge export {bundle.path} -o {bundle.path} --trt --batch 1:4:8"
    assert trt.ENQUEUED == []


@pytest.mark.parametrize("mode", ["fixed", "bank", "input", "refit"])
def test_an_engine_that_takes_more_than_it_is_given_is_refused(trt, tmp_path, mode):
    bundle = with_engines(make(tmp_path / "bundle", mode, "fp32"), change=another_input)
    with pytest.raises(ArtifactError, match="not the one of its manifest: another is missing, too many, or of another"):
        open_trt(bundle, VALUES.get(mode, LAMBDAS)[0])


@pytest.mark.parametrize("change", [lambdas, renamed("lambda", "knob")], ids=["one axis", "renamed"])
def test_lambda_goes_in_as_a_scalar(trt, tmp_path, change):
    bundle = with_engines(make(tmp_path / "bundle", "input", "fp32"), change=change)
    with pytest.raises(ArtifactError, match="not the one of its manifest: lambda"):
        open_trt(bundle, 0.3)
