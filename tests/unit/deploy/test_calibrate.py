"""Calibration as part of an export: what is remembered, and which layers are kept out of it."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx.reference import ReferenceEvaluator

from floats_edge.artifacts.bundle import Bundle, open_bundle, write_manifest
from floats_edge.artifacts.cache import read_cache, write_cache
from floats_edge.artifacts.manifest import Calibration
from floats_edge.artifacts.sensitivity import Sensitivity
from floats_edge.cli.main import cli
from floats_edge.deploy import calibrate
from floats_edge.deploy.calibrate import Int8Request, activation_ranges
from floats_edge.deploy.export import ExportRequest, export
from floats_edge.deploy.quantize import MIN_IMAGES
from floats_edge.errors import ArtifactError
from floats_edge.runtime.base import Images, Logits
from floats_edge.runtime.lambda_weights import bundle_weights, input_weights
from floats_edge.runtime.ort import open_ort
from floats_edge.runtime.torch import run_predictor

FAST = Int8Request("minmax")


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where the cache lies; it is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "floats-edge"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, cache: Path) -> list[str]:
    """A list that grows by one whenever ranges are measured."""
    calls: list[str] = []
    right = calibrate.calibrate

    def counted(model_at, tensors, images, method):
        calls.append(method)
        return right(model_at, tensors, images, method)

    monkeypatch.setattr(calibrate, "calibrate", counted)
    return calls


def tree(bundle: Bundle) -> dict[str, bytes]:
    return {name: bundle.read(name) for name in bundle.manifest.files}


def int8(source: Path, out: Path, request: Int8Request = FAST, lambdas="runtime", **options) -> Bundle:
    return export(source, out, ExportRequest(lambdas, "int8", int8=request, **options))


def test_a_second_export_does_not_calibrate_and_gives_the_same_bytes(bundles, measured, tmp_path) -> None:
    first, second = (int8(bundles("bound").path, tmp_path / name) for name in ("first", "second"))
    assert measured == ["minmax"]
    assert tree(first) == tree(second)
    assert first.manifest.calibration == second.manifest.calibration


class TestCache:
    """On the ranges alone, without the export around them."""

    @pytest.fixture
    def ranges(self, float_network, digits, digits_run, digits_recipe) -> Callable[..., dict[str, float]]:
        """``ranges(**changes)``: those of a few hundred images, with changes to how they are found."""
        images = digits.train.first(MIN_IMAGES)
        record = Calibration(method="minmax", images=MIN_IMAGES, lambdas=(0.5,), attack=digits_recipe.attack)

        def found(seed: int = 0, **changes: object) -> dict[str, float]:
            changed = record.model_copy(update=changes)
            twin = functools.partial(run_predictor, digits_run)
            return activation_ranges(float_network, twin, images, changed, seed, lambda _: None)

        return found

    def test_what_is_remembered_is_what_was_measured(self, ranges, measured) -> None:
        assert ranges() == ranges() == ranges(kept=("stem",), kept_precision="fp16")
        assert len(measured) == 1

    @pytest.mark.parametrize("other", [{"method": "percentile"}, {"lambdas": (0.3,)}, {"seed": 1}], ids=str)
    def test_another_question_is_measured_anew(self, ranges, measured, other) -> None:
        ranges()
        ranges(**other)
        assert len(measured) == 2

    def test_other_weights_are_measured_anew(self, ranges, measured, float_network, monkeypatch) -> None:
        before = ranges()
        stem = float_network.layers["stem"]
        other = replace(stem, bias_base=stem.bias_base + 1)
        monkeypatch.setitem(float_network.layers, "stem", other)
        assert ranges() != before
        assert len(measured) == 2

    @pytest.mark.parametrize(
        "damage", ["cut", "not JSON", "of another key", "a layer is missing", "not finite", "negative"]
    )
    def test_a_damaged_file_is_ignored_with_a_remark_and_written_anew(
        self, ranges, measured, cache, caplog, damage
    ) -> None:
        before = ranges()
        (file,) = cache.iterdir()
        whole = file.read_bytes()
        data = read_cache(file)
        assert data is not None
        content = json.loads(data)
        name = next(iter(content["ranges"]))
        if damage == "of another key":
            content["key"] = "0" * 64
        elif damage == "a layer is missing":
            del content["ranges"][name]
        else:
            content["ranges"][name] = {"not finite": float("nan"), "negative": -1.0}.get(damage, 1.0)
        write_cache(file, data[:-20] if damage == "not JSON" else json.dumps(content).encode())
        if damage == "cut":
            file.write_bytes(whole[:-20])
        assert ranges() == before
        assert len(measured) == 2
        assert ("is damaged and is not used" if damage == "cut" else "calibrating again") in caplog.text
        assert str(file) in caplog.text
        assert file.read_bytes() == whole

    def test_a_cache_that_cannot_be_written_costs_time_only(
        self, ranges, measured, tmp_path, monkeypatch, caplog
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert ranges() == ranges()
        assert len(measured) == 2
        assert "nothing is cached" in caplog.text

    def test_a_user_without_a_home_goes_without(self, ranges, measured, monkeypatch, caplog, homeless) -> None:
        assert ranges() == ranges()
        assert len(measured) == 2
        assert "this user has no home directory" in caplog.text


def quantised(model: onnx.ModelProto) -> set[str]:
    """Layers whose convolution reads what comes from int8."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    dequantised = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    return {node.input[2].removesuffix(".bias") for node in convolutions if {*node.input[:2]} <= dequantised}


@pytest.mark.parametrize("mode", ["fixed", "bank", "bound", "input"])
def test_a_kept_layer_stays_float_in_every_mode(bundles: Callable[..., Bundle], tmp_path: Path, mode: str) -> None:
    lambdas = {"fixed": (0.3,), "bank": (0.0, 1.0)}.get(mode, "runtime")
    switch = "input" if mode == "input" else "bound"
    kept = ("stem", "blocks.1.conv1")
    bundle = int8(bundles("bound").path, tmp_path / "bundle", Int8Request("minmax", kept), lambdas, switch=switch)
    assert bundle.manifest.calibration is not None
    assert bundle.manifest.calibration.kept == kept
    convolutions = {layer.name for layer in bundle.manifest.layers} - {"head"}
    for graph in bundle.manifest.graphs:
        assert quantised(onnx.load_model_from_string(bundle.read(graph.file))) == convolutions - set(kept)


def conv_types(model: onnx.ModelProto) -> dict[str, set[int]]:
    """Element types of what each layer's convolution reads and gives, by layer."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    graph = inferred.graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.input, *graph.value_info)}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    return {
        node.input[1].partition(".weight")[0]: {types[name] for name in (*node.input, *node.output)}
        for node in graph.node
        if node.op_type == "Conv"
    }


def rounded_logits(bundle: Bundle, images: Images) -> Logits:
    """Of the first graph, by ONNX's reference: ONNX Runtime's CPU computes in float32 what is to be half."""
    manifest = bundle.manifest
    model = onnx.load_model_from_string(bundle.read(manifest.graphs[0].file))
    model.opset_import[0].version = 21  # the reference has no DequantizeLinear of 18, which is the same
    lam = manifest.parity[0].lam
    feeds = {"images": images}
    if manifest.lam.mode == "bound":
        feeds |= input_weights(bundle).at(lam)
    elif manifest.lam.mode == "input":
        feeds["lambda"] = np.float32(lam)
    return np.asarray(ReferenceEvaluator(model).run(None, feeds)[0])


@pytest.mark.parametrize("mode", ["fixed", "bank", "bound", "input"])
def test_a_kept_layer_computes_in_half_precision_in_every_mode(
    bundles: Callable[..., Bundle], tmp_path: Path, digits, mode: str
) -> None:
    lambdas = {"fixed": (0.3,), "bank": (0.0, 1.0)}.get(mode, "runtime")
    switch = "input" if mode == "input" else "bound"
    kept = ("stem", "blocks.1.conv1", "blocks.1.shortcut")
    images = digits.validation.first(2).as_float()
    logits = []
    for precision in ("fp32", "fp16"):
        request = Int8Request(keep=kept, keep_precision=precision)
        bundle = int8(bundles("bound").path, tmp_path / precision, request, lambdas, switch=switch)
        assert bundle.manifest.calibration is not None
        assert bundle.manifest.calibration.kept_precision == precision
        for graph in bundle.manifest.graphs:
            types = conv_types(onnx.load_model_from_string(bundle.read(graph.file)))
            halves = {layer for layer, found in types.items() if found == {onnx.TensorProto.FLOAT16}}
            assert halves == (set(kept) if precision == "fp16" else set())
            assert all(types[layer] == {onnx.TensorProto.FLOAT} for layer in types.keys() - halves)
        logits.append(rounded_logits(bundle, images))
    difference = np.abs(logits[0] - logits[1]).max()
    assert 0 < difference <= 2e-2 * np.ptp(logits[0]), "little, though rounding may push a value to the next int8 step"


def test_bound_weights_come_in_the_type_of_their_layer(bundles: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = int8(bundles("bound").path, tmp_path / "bundle", Int8Request(keep=("stem",), keep_precision="fp16"))
    weights, exact = input_weights(bundle), bundle_weights(bundle)
    for lam in (0.0, 0.7):
        found, wanted = weights.at(lam), exact.at(lam)
        assert {name for name, array in found.items() if array.dtype == np.float16} == {"stem.weight", "stem.bias"}
        assert np.array_equal(found["stem.weight"], wanted["stem.weight"].astype(np.float16))
        assert found["blocks.0.conv1.weight"].dtype == np.int8
        assert found["blocks.0.conv1.bias"].dtype == found["head.weight"].dtype == np.float32
    assert bundle.manifest.calibration is not None
    otherwise = bundle.manifest.calibration.model_copy(update={"kept_precision": "fp32"})
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"calibration": otherwise}))
    with pytest.raises(ArtifactError, match=r"input stem.weight: float \[8, 1, 3, 3\] stated, float16 \[8, 1, 3, 3\]"):
        open_ort(open_bundle(bundle.path), "ort-cpu", 0.0)


def test_a_layer_that_is_none_and_nothing_left(bundles: Callable[..., Bundle], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"cannot keep head, nowhere: the layers that it quantises are stem, bl"):
        int8(bundles("bound").path, tmp_path / "bundle", Int8Request(keep=("nowhere", "head")))
    with pytest.raises(ArtifactError, match="nothing is left to quantise"):
        int8(bundles("bound").path, tmp_path / "bundle", Int8Request(keep=("stem",), keep_worst=8))
    assert list(tmp_path.iterdir()) == []


def test_the_command_reports_what_each_layer_costs_and_keeps_the_worst(
    bundles: Callable[..., Bundle], tmp_path: Path
) -> None:
    out = tmp_path / "bundle"
    words = ["export", str(bundles("bound").path), "-o", str(out), "--precision", "int8", "--calibration", "minmax"]
    words += ["--keep", "blocks.0.conv1", "--keep-worst", "1", "--keep-precision", "fp16"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    report = Sensitivity.model_validate_json((out / "sensitivity.json").read_bytes())
    worst = next(cost.layer for cost in report.layers if cost.layer != "blocks.0.conv1")
    calibration = json.loads((out / "manifest.json").read_text())["calibration"]
    kept = calibration["kept"]
    assert sorted(kept) == sorted({worst, "blocks.0.conv1"})
    assert calibration["kept_precision"] == "fp16"
    shown = CliRunner().invoke(cli, ["inspect", str(out)]).stdout
    for text in (result.stdout, shown):
        assert "What int8 costs in one layer alone" in text
        assert text.index(report.layers[0].layer) < text.index("all of these together")
    assert calibration["reasons"] == {
        worst: "it costs most, for --keep-worst",
        "blocks.0.conv1": "asked for with --keep",
    }
    for layer in kept:
        assert f"kept in fp16: {layer}: {calibration['reasons'][layer]}" in result.stdout
        assert f"{layer}: {calibration['reasons'][layer]}" in " ".join(shown.split())
    assert "kept in fp16" in shown


def test_the_options_of_int8_go_with_int8(bundles: Callable[..., Bundle], tmp_path: Path) -> None:
    for words in (
        ["--calibration", "entropy"],
        ["--keep", "stem"],
        ["--keep-worst", "1"],
        ["--keep-precision", "fp16"],
        ["--sensitivity", "--precision", "fp16"],
    ):
        result = CliRunner().invoke(cli, ["export", str(bundles("bound").path), "-o", str(tmp_path / "out"), *words])
        assert result.exit_code == 2
        assert "go with --precision int8" in result.stderr


def test_a_precision_for_kept_layers_needs_some(bundles: Callable[..., Bundle], tmp_path: Path) -> None:
    words = ["export", str(bundles("bound").path), "-o", str(tmp_path / "out"), "--precision", "int8"]
    result = CliRunner().invoke(cli, [*words, "--keep-precision", "fp16"])
    assert result.exit_code == 1
    assert "no layer is kept out of int8 that could compute in fp16" in result.stderr
    assert not (tmp_path / "out").exists()


def test_no_test_image_is_looked_at(float_network, digits, digits_run, digits_recipe) -> None:
    """Ranges and report come about without any."""
    blind = replace(digits, test=digits.test.first(0))
    request = Int8Request("minmax", sensitivity=True)
    twin = functools.partial(run_predictor, digits_run)
    found = calibrate.quantisation(float_network, twin, blind, None, digits_recipe, request, lambda _: None)
    assert found.record.images == 512
    assert found.sensitivity is not None
    assert found.sensitivity.images == len(digits.validation)
