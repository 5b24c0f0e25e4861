import shutil
from collections.abc import Callable

import pytest
from click.testing import CliRunner

from floats_edge.artifacts.bundle import Bundle, file_entries, open_bundle, write_manifest
from floats_edge.artifacts.files import pack_tensors
from floats_edge.artifacts.verification import Verification
from floats_edge.cli.main import cli
from floats_edge.deploy.verify import VerifyRequest, verify
from floats_edge.errors import ArtifactError

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


def test_the_command_prints_the_figures_and_writes_them(bundles, tmp_path):
    out = tmp_path / "verification.json"
    path = bundles("fixed").path
    result = CliRunner().invoke(cli, ["verify", str(path), "--images", "40", "--queries", "20", "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert "top-1 agreement 100.00 %" in result.stdout
    assert "Square on the engine" in result.stdout
    assert f"Verified: {path} on ort-cpu" in result.stdout
    record = Verification.model_validate_json(out.read_bytes())
    assert [proof.lam for proof in record.proofs] == [0.3]


def test_the_command_fails_where_a_gate_is_not_passed(copy):
    bundle = copy("fixed")
    golden = bundle.tensors("golden.safetensors")
    golden["logits_0"] = golden["logits_0"][::-1]
    (bundle.path / "golden.safetensors").write_bytes(pack_tensors(golden))
    result = CliRunner().invoke(cli, ["verify", str(rewrite(bundle).path), "--images", "8", "--queries", "2"])
    assert result.exit_code == 1
    assert "is not the network that was evaluated" in result.stderr
    assert "Remedy: export it again" in result.stderr


def test_an_export_that_was_let_pass_says_so(copy):
    bundle = rewrite(copy("fixed"), mismatch="at lambda 0.3 it differed.")
    result = CliRunner().invoke(cli, ["verify", str(bundle.path), "--images", "8", "--queries", "2"])
    assert "exported with --allow-mismatch: at lambda 0.3 it differed." in result.stdout
    assert "let pass" in CliRunner().invoke(cli, ["inspect", str(bundle.path)]).stdout
