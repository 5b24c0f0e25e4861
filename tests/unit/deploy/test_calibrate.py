"""Calibration as part of an export: what is remembered, and which layers stay float32."""

import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.manifest import Calibration
from floats_edge.artifacts.sensitivity import Sensitivity
from floats_edge.cli.main import cli
from floats_edge.deploy import calibrate
from floats_edge.deploy.calibrate import Int8Request, activation_ranges, cache_folder
from floats_edge.deploy.export import ExportRequest, export
from floats_edge.deploy.lambda_graph import Network
from floats_edge.deploy.quantize import MIN_IMAGES
from floats_edge.errors import ArtifactError
from floats_edge.runtime.torch import run_predictor, trained_layers

FAST = Int8Request("minmax")


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """An empty cache, and a list that grows by one whenever ranges are measured."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    calls: list[str] = []
    right = calibrate.calibrate

    def counted(model_at, images, method):
        calls.append(method)
        return right(model_at, images, method)

    monkeypatch.setattr(calibrate, "calibrate", counted)
    return calls


@pytest.fixture
def float_network(bundles: Callable[..., Bundle], digits_run: TrainingRun) -> Network:
    """The network of ``digits_run`` as graphs are made from it."""
    template = onnx.load_model_from_string(bundles("bound").read("model.onnx"))
    return Network(template, trained_layers(digits_run), "interpolate")


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
        assert ranges() == ranges() == ranges(kept=("stem",))
        assert len(measured) == 1

    @pytest.mark.parametrize("other", [{"method": "percentile"}, {"lambdas": (0.3,)}, {"seed": 1}], ids=str)
    def test_another_question_is_measured_anew(self, ranges, measured, other) -> None:
        ranges()
        ranges(**other)
        assert len(measured) == 2

    def test_other_weights_are_measured_anew(self, ranges, measured, float_network, monkeypatch) -> None:
        before = ranges()
        stem = float_network.layers["stem"]
        other = replace(stem, bias_clean=stem.bias_clean + 1)
        monkeypatch.setitem(float_network.layers, "stem", other)
        assert ranges() != before
        assert len(measured) == 2

    @pytest.mark.parametrize("damage", ["not JSON", "of another key", "a layer is missing", "not finite", "negative"])
    def test_a_damaged_file_is_ignored_with_a_remark_and_written_anew(self, ranges, measured, caplog, damage) -> None:
        before = ranges()
        (file,) = cache_folder().iterdir()
        whole = file.read_bytes()
        content = json.loads(whole)
        name = next(iter(content["ranges"]))
        if damage == "of another key":
            content["key"] = "0" * 64
        elif damage == "a layer is missing":
            del content["ranges"][name]
        else:
            content["ranges"][name] = {"not finite": float("nan"), "negative": -1.0}.get(damage, 1.0)
        file.write_bytes(whole[:-20] if damage == "not JSON" else json.dumps(content).encode())
        assert ranges() == before
        assert len(measured) == 2
        assert "calibrating again" in caplog.text
        assert str(file) in caplog.text
        assert file.read_bytes() == whole

    def test_a_cache_that_cannot_be_written_costs_time_only(
        self, ranges, measured, tmp_path, monkeypatch, caplog
    ) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        assert ranges() == ranges()
        assert len(measured) == 2
        assert "the next export will calibrate again" in caplog.text


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
    result = CliRunner().invoke(cli, [*words, "--keep", "blocks.0.conv1", "--keep-worst", "1"])
    assert result.exit_code == 0, result.output
    report = Sensitivity.model_validate_json((out / "sensitivity.json").read_bytes())
    worst = next(cost.layer for cost in report.layers if cost.layer != "blocks.0.conv1")
    kept = json.loads((out / "manifest.json").read_text())["calibration"]["kept"]
    assert sorted(kept) == sorted({worst, "blocks.0.conv1"})
    shown = CliRunner().invoke(cli, ["inspect", str(out)]).stdout
    for text in (result.stdout, shown):
        assert "What int8 costs in one layer alone" in text
        assert text.index(report.layers[0].layer) < text.index("all of these together")
    assert ", ".join(kept) in shown


def test_the_options_of_int8_go_with_int8(bundles: Callable[..., Bundle], tmp_path: Path) -> None:
    for words in (["--keep", "stem"], ["--keep-worst", "1"], ["--sensitivity", "--precision", "fp16"]):
        result = CliRunner().invoke(cli, ["export", str(bundles("bound").path), "-o", str(tmp_path / "out"), *words])
        assert result.exit_code == 2
        assert "go with --precision int8" in result.stderr


def test_no_test_image_is_looked_at(float_network, digits, digits_run, digits_recipe) -> None:
    """Ranges and report come about without any."""
    blind = replace(digits, test=digits.test.first(0))
    request = Int8Request("minmax", sensitivity=True)
    twin = functools.partial(run_predictor, digits_run)
    found = calibrate.quantisation(float_network, twin, blind, None, digits_recipe, request, lambda _: None)
    assert found.record.images == 512
    assert found.sensitivity is not None
    assert found.sensitivity.images == len(digits.validation)
