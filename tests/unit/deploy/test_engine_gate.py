"""Engines that do not give the golden outputs: refused, or let pass and never forgotten. TensorRT is a stand-in."""

import importlib
from pathlib import Path

import pytest
from fixtures.tiny_bundle import images, write_bundle

from floats_edge.artifacts.bundle import Bundle, file_entries, open_bundle, write_manifest
from floats_edge.artifacts.files import pack_tensors, write_atomic
from floats_edge.deploy.export import ExportRequest, export
from floats_edge.errors import BackendError, FloatsError, ParityError
from floats_edge.runtime.trt import open_trt

FAKE_GPU = Path(__file__).parents[2] / "fixtures" / "fake_gpu"
BUILD = ExportRequest(trt=True)
LET_PASS = ExportRequest(trt=True, allow_mismatch=True)


@pytest.fixture
def trt(fake_driver, monkeypatch, tmp_path):
    """TensorRT 10.3.0 on an Orin, for the child process of a build too."""
    monkeypatch.setenv("PYTHONPATH", str(FAKE_GPU))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return importlib.import_module("tensorrt")


@pytest.fixture
def refit(tmp_path):
    return write_bundle(tmp_path / "my bundle", None, "fp32", "refit")


def with_other_golden(bundle: Bundle) -> Bundle:
    """The bundle with golden logits that its network does not give."""
    tensors = bundle.tensors("golden.safetensors")
    write_atomic(bundle.path / "golden.safetensors", pack_tensors({**tensors, "logits_0": tensors["logits_0"][::-1]}))
    write_manifest(bundle.path, bundle.manifest.model_copy(update={"files": file_entries(bundle.path)}))
    return open_bundle(bundle.path)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def assert_refused(bundle: Bundle, kind: type[FloatsError], what: str) -> str:
    """An export in place fails like this, leaves what stood there, and sends nobody to where it was staged."""
    before = tree(bundle.path)
    with pytest.raises(kind, match=what) as caught:
        export(bundle.path, bundle.path, BUILD)
    assert tree(bundle.path) == before
    assert ".partial-" not in caught.value.fix
    return caught.value.fix


def test_golden_outputs_are_checked_once(trt, refit):
    bundle = export(refit.path, refit.path, BUILD)
    assert len(trt.LAUNCHES) == 4, "two images at two lambdas, one at a time"
    assert bundle.manifest.let_pass == ()


@pytest.mark.parametrize("lambdas", [(0.3,), (0.0, 1.0), None], ids=["fixed", "bank", "bound"])
def test_an_engine_that_gives_something_else_is_refused_or_recorded(trt, tmp_path, caplog, lambdas):
    bundle = with_other_golden(write_bundle(tmp_path / "bundle", lambdas))
    assert "--allow-mismatch" in assert_refused(bundle, ParityError, "differs from the golden logits")
    exported = export(bundle.path, bundle.path, LET_PASS).manifest
    assert exported.mismatch is None, "the graphs are not to blame"
    for engine in exported.engines:
        assert "differs from the golden logits" in (engine.mismatch or "")
    assert exported.let_pass[0].startswith(f"{exported.engines[0].file}: trt at lambda")
    with open_trt(open_bundle(bundle.path), 0.3 if lambdas == (0.3,) else 0.0) as predictor:
        assert predictor.predict(images(1)).shape == (1, 5)
    assert caplog.text.count("was exported with --allow-mismatch: trt at lambda") == 1


def test_an_engine_that_refits_in_part_can_be_opened_once_it_was_let_pass(trt, refit, monkeypatch, caplog):
    monkeypatch.setenv("FAKE_TENSORRT", "refit in part")
    assert_refused(refit, ParityError, r"trt at lambda 0\.5 differs from the golden logits")
    bundle = export(refit.path, refit.path, LET_PASS)
    with open_trt(bundle, 1.0) as predictor:
        assert predictor.lam == 1.0
        assert predictor.predict(images(1)).shape == (1, 5)
    assert "was exported with --allow-mismatch: trt at lambda 0.5" in caplog.text


def test_an_engine_that_is_rebuilt_is_judged_anew(trt, refit, monkeypatch, caplog):
    monkeypatch.setenv("FAKE_TENSORRT", "refit in part")
    assert export(refit.path, refit.path, LET_PASS).manifest.let_pass
    monkeypatch.delenv("FAKE_TENSORRT")
    bundle = export(refit.path, refit.path, BUILD)
    assert bundle.manifest.let_pass == ()
    monkeypatch.setenv("FAKE_TENSORRT", "refit in part")
    with pytest.raises(ParityError, match="differs from the golden logits"):
        open_trt(bundle, 0.0)


def test_an_engine_that_does_not_load_is_not_let_pass(trt, refit, monkeypatch):
    monkeypatch.setenv("FAKE_TENSORRT", "undeserialisable")
    assert_refused(refit, BackendError, "could not load")
    with pytest.raises(BackendError, match="could not load"):
        export(refit.path, refit.path, LET_PASS)


def test_an_engine_for_another_host_is_neither_checked_nor_marked(trt, refit, monkeypatch, caplog):
    """Nor is an older one, which runs here, made to answer for it."""
    monkeypatch.setenv("FAKE_TENSORRT", "refit in part")
    export(refit.path, refit.path, LET_PASS)
    monkeypatch.setenv("FAKE_TENSORRT_VERSION", "10.9.0")  # of the child, which builds
    bundle = export(refit.path, refit.path, BUILD)
    assert [(engine.version, bool(engine.mismatch)) for engine in bundle.manifest.engines] == [
        ("10.9.0", False),
        ("10.3.0", True),
    ]
    assert "built, but not run here" in caplog.text
    assert "built by tensorrt 10.9.0; here is 10.3.0" in caplog.text
