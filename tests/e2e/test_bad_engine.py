"""What a user gets for an engine that does not fit or is damaged: why, the command that mends it, nothing deserialised.

The engines are those of a stand-in of TensorRT 10.3.0 on an Orin; those that fail to be written are TensorRT-RTX's.
"""

import importlib
import json
import resource
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import Result
from fixtures.commands import assert_misused, assert_told, inflict, invoke, tree
from fixtures.tiny_bundle import add_engine, engine_entry

from floats_edge.artifacts.bundle import Bundle, file_entries, open_bundle, write_manifest
from floats_edge.artifacts.files import pack_tensors, sha256

FAKE_GPU = Path(__file__).parents[1] / "fixtures" / "fake_gpu"

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def trt(fake_driver: ModuleType) -> ModuleType:
    return importlib.import_module("tensorrt")


@pytest.fixture
def bundle(bundles: Callable[..., Bundle], tmp_path: Path) -> Bundle:
    """A copy of a bundle in mode ``bound`` with an engine that fits the stand-in."""
    copy = open_bundle(Path(shutil.copytree(bundles("bound").path, tmp_path / "bundle")))
    plan = b"[1, 8]\n" + copy.read("model.onnx")
    return add_engine(copy, engine_entry("engines/a.plan"), plan)


def evaluate(bundle: Bundle, *words: str) -> Result:
    out = bundle.path.with_name("evaluation.json")
    return invoke("evaluate", bundle.path, "--backend", "trt", "--images", "20", "--steps", "1", "-o", out, *words)


def edit(bundle: Bundle, change: Callable[[dict], object]) -> None:
    """Change the manifest as someone with an editor would."""
    content = json.loads((bundle.path / "manifest.json").read_text())
    change(content)
    (bundle.path / "manifest.json").write_text(json.dumps(content))


def rewrite(bundle: Bundle, name: str, data: bytes) -> None:
    """Write a file of the bundle and list it with its right hash."""
    (bundle.path / name).write_bytes(data)
    edit(bundle, lambda content: content["files"][name].update(sha256=sha256(data), bytes=len(data)))


def test_an_engine_that_fits_is_run(trt: ModuleType, bundle: Bundle) -> None:
    result = evaluate(bundle)
    assert result.exit_code == 0, result.output
    assert trt.LAUNCHES


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("version", "10.13.2.6", "built by tensorrt 10.13.2.6; here is 10.3.0"),
        ("targets", ["sm_86", "sm_120"], "built for sm_86, sm_120; this GPU is sm_87"),
        ("platform", "linux-sparc", "built for linux-sparc"),
        ("dla", 0, "built for DLA 0; TensorRT finds 0 here"),
    ],
)
def test_an_engine_of_another_host(trt: ModuleType, bundle: Bundle, field: str, value: object, told: str) -> None:
    edit(bundle, lambda content: content["engines"][0].update({field: value}))
    before = tree(bundle.path)
    assert_told(evaluate(bundle), told, f"floats-edge export {bundle.path} -o {bundle.path} --trt --batch 1:4:8")
    assert trt.DESERIALISED == []
    assert tree(bundle.path) == before


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("truncated", "truncated or altered"),
        ("altered", "was altered"),
        ("missing", "is missing"),
        ("link", "leads out"),
    ],
)
def test_a_damaged_plan(trt: ModuleType, bundle: Bundle, damage: str, told: str) -> None:
    inflict(damage, bundle.path / "engines" / "a.plan", bundle.path.parent / "elsewhere")
    assert_told(
        evaluate(bundle), told, "a.plan", f"floats-edge export {bundle.path} -o {bundle.path} --trt --batch 1:4:8"
    )
    assert trt.DESERIALISED == []


@pytest.fixture
def rebuild(trt: ModuleType, monkeypatch: pytest.MonkeyPatch, bundle: Bundle) -> Callable[[], Result]:
    """Builds with the stand-in, in the child process too; where the engine is listed with its log."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE_GPU))
    (bundle.path / "engines" / "a.log").write_text("as TensorRT said\n" * 10)
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"files": file_entries(bundle.path)}))
    return lambda: invoke("export", bundle.path, "-o", bundle.path, "--trt")


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing", "link"])
def test_a_damaged_plan_does_not_stop_its_rebuild(
    rebuild: Callable[[], Result], bundle: Bundle, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    inflict(damage, bundle.path / "engines" / "a.plan", bundle.path.parent / "elsewhere")
    assert rebuild().exit_code == 0
    assert "left out: " in caplog.text
    assert "a.plan" in caplog.text
    rebuilt = open_bundle(bundle.path)
    rebuilt.files.verify()
    assert len(rebuilt.manifest.engines) == 1
    assert not {"engines/a.plan", "engines/a.log"} & set(rebuilt.manifest.files)
    assert not (bundle.path / "engines" / "a.log").exists()
    assert evaluate(rebuilt).exit_code == 0


def test_an_engine_that_lost_its_log_is_kept(rebuild: Callable[[], Result], bundle: Bundle) -> None:
    inflict("missing", bundle.path / "engines" / "a.log", bundle.path.parent / "elsewhere")
    result = rebuild()
    assert result.exit_code == 0
    rebuilt = open_bundle(bundle.path).manifest
    assert rebuilt.parity
    told = [line.split()[0] for line in result.stdout.splitlines()]
    assert told == [rebuilt.engines[0].file, "Exported:"], "what was done, and nothing that was measured before"
    assert rebuilt.engines[1].file == "engines/a.plan"
    assert "engines/a.log" not in rebuilt.files


def test_a_verdict_on_engines_ends_with_them(rebuild: Callable[[], Result], bundle: Bundle) -> None:
    words = ("--images", "8", "--queries", "2")
    for backend in ("trt", "ort-cpu"):
        result = invoke("verify", bundle.path, "--backend", backend, *words)
        assert result.exit_code == 0, result.output
    first, _ = open_bundle(bundle.path).manifest.verdicts
    assert (first.backend, first.library) == ("trt", "tensorrt 10.3.0 on sm_87")
    edit(bundle, lambda content: content["verdicts"][0].update(problems=["It differed."]))
    remedy = f"floats-edge export {bundle.path} -o {bundle.path} --trt"
    assert_told(evaluate(bundle), "failed floats-edge verify on trt (tensorrt 10.3.0 on sm_87): It differed.", remedy)
    assert rebuild().exit_code == 0
    assert [verdict.backend for verdict in open_bundle(bundle.path).manifest.verdicts] == ["ort-cpu"]
    assert evaluate(bundle).exit_code == 0


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors", "golden.safetensors"])
def test_a_rebuild_needs_the_rest_whole(rebuild: Callable[[], Result], bundle: Bundle, name: str) -> None:
    inflict("altered", bundle.path / name, bundle.path.parent / "elsewhere")
    before = tree(bundle.path)
    assert_told(rebuild(), f"{name} was altered", "export it again")
    assert tree(bundle.path) == before


@pytest.mark.parametrize("name", ["../a.plan", "/tmp/a.plan", "engines/../../a.plan"])
def test_a_plan_outside_the_bundle(trt: ModuleType, bundle: Bundle, name: str) -> None:
    shutil.copy(bundle.path / "engines" / "a.plan", bundle.path.parent / "a.plan")

    def lead_out(content: dict) -> None:
        content["engines"][0]["file"] = name
        content["files"][name] = content["files"].pop("engines/a.plan")

    edit(bundle, lead_out)
    assert_told(evaluate(bundle), "does not name a file inside the folder")
    assert trt.DESERIALISED == []


@pytest.mark.parametrize("damage", ["missing", "extra"])
def test_weights_of_too_few_or_too_many_tensors(trt: ModuleType, bundle: Bundle, damage: str) -> None:
    tensors = bundle.tensors("weights.safetensors")
    name = next(name for name in tensors if name.endswith(".gain_slope"))
    tensor = tensors.pop(name) if damage == "missing" else tensors[name]
    if damage == "extra":
        tensors["nowhere.gain_slope"] = tensor
    rewrite(bundle, "weights.safetensors", pack_tensors(tensors))
    assert_told(evaluate(bundle), "the weights do not fit the manifest", name if damage == "missing" else "nowhere")
    assert trt.DESERIALISED == []


def test_lambda_that_is_out_of_range(trt: ModuleType, bundle: Bundle) -> None:
    assert_misused(evaluate(bundle, "--lambda", "1.5"), "from 0")
    assert trt.DESERIALISED == []


class TestBuild:
    """By the real TensorRT-RTX, into a bundle that is there: it stays what it was."""

    @pytest.fixture
    def rtx(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")
        blocked = tmp_path / "blocked"
        blocked.mkdir()
        (blocked / "tensorrt.py").write_text("raise ImportError('hidden by the test')")
        monkeypatch.setenv("PYTHONPATH", str(blocked))
        monkeypatch.setitem(sys.modules, "tensorrt", None)

    @pytest.mark.parametrize(
        ("words", "told"),
        [
            (["--dla", "0", "--batch", "8"], "a DLA cannot run mode bound in fp32"),
            (["--dla", "0", "--batch", "1:4:8"], "a DLA takes one batch size"),
            (["--target", "sm_87"], "does not compile for sm_87"),
            (["--target", "orin"], "'orin' is no compute capability"),
            (["--compatibility", "version"], "neither compatible engines nor DLAs"),
        ],
    )
    def test_that_is_not_possible(self, rtx: None, bundle: Bundle, words: list[str], told: str) -> None:
        before = tree(bundle.path.parent)
        assert_told(invoke("export", bundle.path, "-o", bundle.path, "--trt", *words), told)
        assert tree(bundle.path.parent) == before

    @pytest.mark.parametrize(
        "words", [("--target", "sm_86"), ("--batch", "8"), ("--dla", "0"), ("--compatibility", "version")]
    )
    def test_options_of_engines_without_engines(self, bundle: Bundle, words: tuple[str, str]) -> None:
        assert_misused(invoke("export", bundle.path, "-o", bundle.path, *words), "add --trt")

    def test_no_room_for_the_plan(self, rtx: None, bundle: Bundle) -> None:
        """Every file of the bundle still fits where it is copied to; the plan, which the child writes, does not."""
        before = tree(bundle.path.parent)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 + max(map(len, before.values())), limits[1]))
        try:
            result = invoke("export", bundle.path, "-o", bundle.path, "--trt")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert_told(result, "engine.plan could not be written: File too large", "make room")
        assert tree(bundle.path.parent) == before
