import errno
import json
import os
import shutil
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner, Result

from floats_edge.artifacts.bundle import Bundle, file_entries, keep_verdict, open_bundle, write_manifest
from floats_edge.artifacts.files import pack_tensors
from floats_edge.artifacts.verification import Verification
from floats_edge.cli.main import cli
from floats_edge.deploy.export import ExportRequest, export
from floats_edge.deploy.verify import VerifyRequest, verify
from floats_edge.errors import ArtifactError, ParityError
from floats_edge.runtime.backends import open_predictor

QUICK = VerifyRequest(images=40, queries=20)


@pytest.fixture
def copy(bundles: Callable[..., Bundle], tmp_path):
    """A copy of a bundle, to be changed."""

    def copied(mode: str, precision: str = "fp32") -> Bundle:
        return open_bundle(shutil.copytree(bundles(mode, precision).path, tmp_path / mode))

    return copied


def rewrite(bundle: Bundle, **changes: object) -> Bundle:
    """The bundle with another manifest, whose hashes are those of the files as they are now."""
    files = file_entries(bundle.path)
    write_manifest(bundle.path, bundle.manifest.model_copy(update={**changes, "files": files}))
    return open_bundle(bundle.path)


@pytest.mark.parametrize(("mode", "lambdas"), [("bound", 5), ("bank", 2)])
def test_a_bundle_as_exported_is_proven(bundles, mode, lambdas):
    found = verify(bundles(mode).path, QUICK)
    assert found.problems == ()
    assert found.files == len(bundles(mode).manifest.files)
    assert len(found.proofs) == len(found.parity) == lambdas
    for proof in found.proofs:
        assert proof.engine == proof.twin, "in fp32 the engine is its twin"
        assert proof.square.total == 40
        assert proof.square.count <= proof.engine.clean.count


def test_an_altered_file_is_found_before_anything_is_loaded(copy):
    bundle = copy("fixed")
    (bundle.path / "model.onnx").write_bytes(b"x" * bundle.manifest.files["model.onnx"].bytes)
    with pytest.raises(ArtifactError, match=r"model.onnx was altered"):
        verify(bundle.path, QUICK)


def test_other_weights_under_valid_hashes_do_not_give_the_golden_outputs(copy):
    bundle = copy("bound")
    tensors = bundle.tensors("weights.safetensors")
    tensors["stem.gain_clean"] = tensors["stem.gain_clean"] * 0.5
    (bundle.path / "weights.safetensors").write_bytes(pack_tensors(tensors))
    assert "golden" in " ".join(verify(rewrite(bundle).path, QUICK).problems)


def test_the_command_prints_the_figures_and_writes_them(copy, tmp_path):
    out = tmp_path / "verification.json"
    path = copy("fixed").path
    result = CliRunner().invoke(cli, ["verify", str(path), "--images", "40", "--queries", "20", "-o", str(out)])
    assert result.exit_code == 0, result.output
    record = Verification.model_validate_json(out.read_bytes())
    (proof,) = record.proofs
    assert proof.lam == 0.3
    shares = (proof.engine.clean, proof.twin.clean, proof.engine.robust, proof.twin.robust, proof.square)
    assert ["0.3", "100.00", *(f"{share.percent:.1f}" for share in shares)] in map(
        str.split, result.stdout.splitlines()
    )
    told = " ".join(result.stdout.split())
    for word in ("λ same class % clean % twin's clean % robust % twin's robust % Square %", "twin: the same network"):
        assert word in told
    assert "robust: still right after an attack (PGD-" in told
    assert "Square: still right after an attack of 20 queries an image" in told
    assert (
        f"Verified: on ort-cpu, {path} answers as it did when it was exported, and as its twin does on 40 images"
        in told
    )


@pytest.fixture
def wrong(copy) -> Bundle:
    """A bundle with golden logits that its network does not give."""
    bundle = copy("fixed")
    golden = bundle.tensors("golden.safetensors")
    golden["logits_0"] = golden["logits_0"][::-1]
    (bundle.path / "golden.safetensors").write_bytes(pack_tensors(golden))
    return rewrite(bundle)


def run_verify(bundle: Bundle, *words: str) -> Result:
    return CliRunner().invoke(cli, ["verify", str(bundle.path), "--images", "8", "--queries", "2", *words])


def test_the_command_fails_where_a_gate_is_not_passed(wrong):
    result = run_verify(wrong)
    assert result.exit_code == 1
    assert "is not the network that was evaluated" in result.stderr
    assert "Remedy: export it again" in result.stderr


def test_the_bundle_keeps_the_latest_verdict_of_each_backend(copy):
    bundle = copy("bank")
    assert run_verify(bundle, "--images", "9").exit_code == 0
    assert run_verify(bundle).exit_code == 0
    kept = open_bundle(bundle.path)
    (verdict,) = kept.manifest.verdicts
    assert (verdict.backend, verdict.library) == ("ort-cpu", f"onnxruntime {onnxruntime.__version__}")
    assert (verdict.images, verdict.queries, verdict.problems, verdict.let_pass) == (8, 2, (), False)
    assert [result.lam for result in verdict.results] == [0, 1]
    assert all(0 < result.clean <= 8 for result in verdict.results)
    assert kept.manifest.model_copy(update={"verdicts": ()}) == bundle.manifest, "all else is what it was"
    open_predictor(kept, "ort-cpu", 0.0)
    assert "Verdicts of floats-edge verify" in CliRunner().invoke(cli, ["inspect", str(bundle.path)]).stdout


def test_a_bundle_that_failed_is_refused_until_it_passes(wrong):
    run_verify(wrong)
    with pytest.raises(ParityError, match=r"failed floats-edge verify on ort-cpu .*golden") as caught:
        open_predictor(open_bundle(wrong.path), "ort-cpu", 0.3)
    assert f"floats-edge verify {wrong.path} --backend ort-cpu --allow-mismatch" in caught.value.fix
    assert run_verify(wrong).exit_code == 1, "verify itself opens it"
    golden = wrong.tensors("golden.safetensors")
    golden["logits_0"] = golden["logits_0"][::-1]
    (wrong.path / "golden.safetensors").write_bytes(pack_tensors(golden))
    assert run_verify(rewrite(open_bundle(wrong.path))).exit_code == 0
    open_predictor(open_bundle(wrong.path), "ort-cpu", 0.3)


def test_the_verdict_is_kept_where_the_output_fails(wrong):
    words = ["verify", str(wrong.path), "--images", "8", "--queries", "2"]
    result = CliRunner(charset="ascii").invoke(cli, words)
    assert isinstance(result.exception, UnicodeEncodeError), "nothing prints a lambda in ASCII"
    with pytest.raises(ParityError, match="failed floats-edge verify on ort-cpu"):
        open_predictor(open_bundle(wrong.path), "ort-cpu", 0.3)


def test_a_verdict_is_on_one_backend_only(wrong):
    verdict = verify(wrong.path, QUICK).verdict(allow_mismatch=False)
    keep_verdict(wrong, verdict.model_copy(update={"backend": "ort-cuda"}))
    open_predictor(open_bundle(wrong.path), "ort-cpu", 0.3)


def test_a_bundle_that_failed_can_be_let_pass(wrong, caplog):
    result = run_verify(wrong, "--allow-mismatch")
    assert result.exit_code == 0
    assert "let pass by --allow-mismatch: ort-cpu at lambda 0.3 differs from the golden logits" in result.stdout
    assert "Verified" not in result.stdout
    open_predictor(open_bundle(wrong.path), "ort-cpu", 0.3)
    assert "let pass with --allow-mismatch" in caplog.text
    shown = CliRunner().invoke(cli, ["inspect", "--json", str(wrong.path)]).stdout
    assert json.loads(shown)["manifest"]["verdicts"][0]["let_pass"] is True


def test_logits_that_are_no_numbers_are_never_let_pass(copy):
    bundle = copy("bound")
    tensors = bundle.tensors("weights.safetensors")
    tensors["stem.gain_clean"] = tensors["stem.gain_clean"] * np.float32(np.nan)
    (bundle.path / "weights.safetensors").write_bytes(pack_tensors(tensors))
    result = run_verify(rewrite(bundle), "--allow-mismatch")
    assert result.exit_code == 1
    assert "no numbers" in result.stderr
    with pytest.raises(ParityError, match="no numbers"):
        open_predictor(open_bundle(bundle.path), "ort-cpu", 0.0)


@pytest.mark.parametrize("passes", [True, False])
def test_a_bundle_that_cannot_be_written_to_is_judged_all_the_same(copy, wrong, monkeypatch, passes):
    bundle = rewrite(copy("bank")) if passes else wrong
    before = (bundle.path / "manifest.json").read_bytes()

    def read_only(descriptor):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "fsync", read_only)
    result = run_verify(bundle)
    assert result.exit_code == (0 if passes else 1)
    assert "does not keep this verdict" in result.stderr
    assert "Read-only file system" in result.stderr
    assert (bundle.path / "manifest.json").read_bytes() == before


def test_a_verdict_is_not_kept_by_another_bundle_in_the_same_place(copy, wrong):
    verdict = verify(wrong.path, QUICK).verdict(allow_mismatch=False)
    shutil.rmtree(wrong.path)
    replaced = copy("fixed")
    with pytest.raises(ArtifactError, match="was replaced"):
        keep_verdict(wrong, verdict)
    assert open_bundle(replaced.path).manifest == replaced.manifest


def test_what_is_made_from_a_bundle_that_was_let_pass_is_no_better(copy, tmp_path):
    bundle = copy("bound")
    verdict = verify(bundle.path, QUICK).verdict(allow_mismatch=False)
    failed = verdict.model_copy(update={"problems": ("it differed.",)})
    keep_verdict(bundle, failed)
    request = ExportRequest(lambdas=(0.3,))
    with pytest.raises(ParityError, match="it differed"):
        export(bundle.path, tmp_path / "fixed", request)
    keep_verdict(bundle, failed.model_copy(update={"let_pass": True}))
    made = export(bundle.path, tmp_path / "fixed", request).manifest
    assert made.mismatch == "it differed."
    assert made.verdicts == ()


def test_an_export_that_was_let_pass_says_so(copy):
    bundle = rewrite(copy("fixed"), mismatch="at lambda 0.3 it differed.")
    result = CliRunner().invoke(cli, ["verify", str(bundle.path), "--images", "8", "--queries", "2"])
    assert "exported with --allow-mismatch: at lambda 0.3 it differed." in result.stdout
    assert "let pass" in CliRunner().invoke(cli, ["inspect", str(bundle.path)]).stdout
