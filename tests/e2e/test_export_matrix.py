"""Every lambda mode at every precision: within its gate on ONNX Runtime, and as a real TensorRT-RTX plan."""

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from fixtures.commands import floats_edge
from fixtures.rtx import assert_rtx_can_mark, halves_by_rtx

from floats_edge.artifacts.bundle import Bundle, open_bundle
from floats_edge.cli.main import cli
from floats_edge.evaluation.parity import GATES, Gate

MODES = {
    "fixed": ["--lambda", "0.3"],
    "bank": ["--lambda", "0", "--lambda", "1"],
    "bound": ["--lambda", "runtime"],
    "input": ["--switch", "input"],
    "refit": ["--switch", "refit"],
}


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
@pytest.mark.parametrize("mode", ["fixed", "bank", "bound", "input"])
def test_it_is_exported_within_its_gate_and_built(
    rtx: None, bundles: Callable[..., Bundle], tmp_path: Path, mode: str, precision: str
) -> None:
    source, out = bundles("bound").path, tmp_path / "bundle"
    floats_edge("export", source, "-o", out, *MODES[mode], "--precision", precision, "--trt", "--batch", "1:2:4")
    manifest = open_bundle(out).manifest
    assert (manifest.lam.mode, manifest.precision, manifest.mismatch) == (mode, precision, None)
    gate = GATES[precision]
    for parity in manifest.parity:
        assert parity.images == 500
        assert parity.top1_agreement >= gate.agreement
        assert parity.max_error <= gate.max_error
        assert parity.p99_error <= gate.p99_error
        assert ("emulated" in parity.backend) == (precision == "bf16")
    assert len(manifest.engines) == len(manifest.graphs) == (2 if mode == "bank" else 1)
    for engine in manifest.engines:
        assert (engine.flavour, engine.precision, engine.batch) == ("tensorrt_rtx", precision, (1, 2, 4))
        assert engine.sparse is not None
        assert engine.sparse.unknown, "TensorRT-RTX does not tell, and these masks are irregular"
        assert manifest.files[engine.file].bytes > 100_000
        assert b"Detected" in (out / engine.file.replace(".plan", ".log")).read_bytes()
    if precision == "int8":
        assert manifest.calibration is not None
        assert (manifest.calibration.method, manifest.calibration.images) == ("minmax", 512)
    else:
        assert manifest.calibration is None
    for graph in manifest.graphs:
        model = onnx.load(out / graph.file)
        assert model.ir_version <= 10
        assert not [node.op_type for node in model.graph.node if "Random" in node.op_type]
        assert {prop.key: prop.value for prop in model.metadata_props}["floats_edge.lambda_mode"] == mode


@pytest.mark.parametrize("mode", ["fixed", "bank", "bound", "input"])
def test_what_int8_keeps_in_fp16_is_built_too(
    rtx: None, bundles: Callable[..., Bundle], tmp_path: Path, mode: str
) -> None:
    out = tmp_path / "bundle"
    kept = ["--keep", "stem", "--keep", "blocks.1.conv1", "--keep-precision", "fp16"]
    floats_edge("export", bundles("bound").path, "-o", out, *MODES[mode], "--precision", "int8", *kept, "--trt")
    manifest = open_bundle(out).manifest
    assert manifest.calibration is not None
    assert manifest.calibration.kept_in_fp16 == ("stem", "blocks.1.conv1")
    assert len(manifest.engines) == len(manifest.graphs)
    assert all(manifest.files[engine.file].bytes > 100_000 for engine in manifest.engines)
    for graph in manifest.graphs:
        assert halves_by_rtx(out / graph.file) == 2, "those two convolutions, and no other"


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_refit_is_exported_for_a_machine_that_can_build_it(
    rtx: None, bundles: Callable[..., Bundle], tmp_path: Path, precision: str
) -> None:
    out = tmp_path / "bundle"
    floats_edge("export", bundles("bound").path, "-o", out, *MODES["refit"], "--precision", precision)
    assert_rtx_can_mark(out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    result = CliRunner().invoke(cli, ["export", str(out), "-o", str(out), "--trt"])
    assert result.exit_code == 1
    assert "TensorRT-RTX builds a refittable engine only where there is a GPU" in result.stderr
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_fixed_graph_holds_nothing_of_lambda(bundles: Callable[..., Bundle], tmp_path: Path) -> None:
    """As many nodes as the bound graph, whose weights are inputs; each with its weight and bias as constants."""
    fixed, bound = (onnx.load(bundles(mode).path / "model.onnx").graph for mode in ("fixed", "bound"))
    assert [node.op_type for node in fixed.node] == [node.op_type for node in bound.node]
    assert {node.op_type for node in fixed.node} <= {"Sub", "Div", "Conv", "Relu", "Add", "ReduceMean", "Gemm"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--lambda", "0.3", "--switch", "input"], "--switch goes with --lambda runtime"),
        (["--switch", "refit", "--precision", "int8"], "an int8 engine cannot be refitted"),
        (["--precision", "int4"], "is not one of"),
    ],
)
def test_what_does_not_go_together_is_refused(
    bundles: Callable[..., Bundle], tmp_path: Path, words: list[str], message: str
) -> None:
    result = CliRunner().invoke(cli, ["export", str(bundles("bound").path), "-o", str(tmp_path / "out"), *words])
    assert result.exit_code != 0
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_mismatch_that_is_allowed_is_recorded(
    bundles: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(GATES, "fp16", Gate(1.0, 1e-12))
    command = ["export", str(bundles("bound").path), "-o", str(tmp_path / "out"), "--precision", "fp16"]
    assert CliRunner().invoke(cli, command).exit_code == 1
    assert not (tmp_path / "out").exists()
    assert "let pass by --allow-mismatch: at lambda" in floats_edge(*command, "--allow-mismatch")
    assert "fp16 must reach 100 %" in (open_bundle(tmp_path / "out").manifest.mismatch or "")


@pytest.mark.parametrize("mode", ["input", "refit"])
def test_inspect_shows_the_mode(bundles: Callable[..., Bundle], tmp_path: Path, mode: str) -> None:
    out = tmp_path / "bundle"
    floats_edge("export", bundles("bound").path, "-o", out, *MODES[mode])
    assert f"{mode}, rule interpolate" in floats_edge("inspect", out)
