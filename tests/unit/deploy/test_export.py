"""The export stage on a real run; engines are tested in test_tensorrt_engine.py and test_trt.py."""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from floats_edge.artifacts.bundle import Bundle, open_bundle, write_manifest
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.data import Splits
from floats_edge.deploy import onnx_graph
from floats_edge.deploy.export import ExportRequest, export
from floats_edge.errors import ArtifactError, FloatsError, LambdaError, OutputError, ParityError
from floats_edge.recipe_file import override_recipe
from floats_edge.runtime.backends import open_predictor

FIXED = ExportRequest((0.3,))


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def old(bundles: Callable[..., Bundle], tmp_path: Path) -> Bundle:
    """A bundle that stands where the next export goes."""
    return export(bundles("bound").path, tmp_path / "bundle", ExportRequest((0.9,)))


def test_from_a_run_and_from_a_bundle_of_it_give_the_same_network(
    digits_run: TrainingRun, bundles: Callable[..., Bundle], digits: Splits, tmp_path: Path
) -> None:
    state = torch.get_rng_state()
    from_run = export(digits_run.path, tmp_path / "bundle", FIXED)
    assert torch.equal(torch.get_rng_state(), state), "the global generator belongs to the caller"
    from_bundle = bundles("fixed")
    assert from_run.manifest.layers == from_bundle.manifest.layers
    assert from_run.manifest.checkpoint_sha256 == from_bundle.manifest.checkpoint_sha256 == digits_run.weights_sha256
    assert from_run.manifest.recipe == digits_run.checkpoint.recipe
    assert {parity.reference for parity in from_run.manifest.parity} == {"torch-cpu"}
    images = digits.test.as_float(slice(32))
    logits = [open_predictor(bundle, "ort-cpu", 0.3).predict(images) for bundle in (from_run, from_bundle)]
    np.testing.assert_allclose(logits[0], logits[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "files"),
    [
        ("bound", {"model.onnx", "weights.safetensors", "golden.safetensors"}),
        ("fixed", {"model.onnx", "golden.safetensors"}),
        ("bank", {"model-lam0.0.onnx", "model-lam1.0.onnx", "golden.safetensors"}),
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_is_in_a_bundle(
    bundles: Callable[..., Bundle], digits: Splits, mode: str, files: set[str], precision: str
) -> None:
    manifest = bundles(mode, precision).manifest
    assert set(manifest.files) == files
    assert (manifest.lam.mode, manifest.precision) == (mode, precision)
    assert manifest.output.labels == digits.labels
    assert manifest.input.shape == (1, 8, 8)
    assert manifest.engines == ()


def test_a_bound_bundle_is_smaller_than_a_dense_one(bundles: Callable[..., Bundle]) -> None:
    """At density 0.3 its weights take (0.3 * 32 + 1) / 32 = 33 % of the dense ones, besides vectors and headers."""
    bound, fixed = bundles("bound").manifest.files, bundles("fixed").manifest.files
    dense = 4 * sum(int(np.prod(layer.shape)) for layer in bundles("bound").manifest.layers)
    assert 0.33 * dense < bound["weights.safetensors"].bytes < 0.55 * dense
    assert bound["model.onnx"].bytes < 0.5 * dense < dense < fixed["model.onnx"].bytes


def test_from_a_bundle_without_pytorch(bundles: Callable[..., Bundle], tmp_path: Path) -> None:
    """As on a board: torch cannot be imported, and the result still is compared on real images."""
    program = f"""
import sys

class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("there is no torch here")

sys.meta_path.insert(0, NoTorch())
from pathlib import Path
from floats_edge.deploy.export import ExportRequest, export
bundle = export(Path({str(bundles("bound").path)!r}), Path({str(tmp_path / "board")!r}), ExportRequest((0.25,), "fp16"))
print(bundle.manifest.lam.mode, bundle.manifest.precision, len(bundle.manifest.parity))
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["fixed", "fp16", "1"]
    bundle = open_bundle(tmp_path / "board")
    bundle.files.verify()
    assert bundle.manifest.parity[0].reference == "ort-cpu"


@pytest.mark.parametrize(("mode", "precision"), [("fixed", "fp32"), ("bank", "fp32"), ("bound", "fp16")])
def test_a_bundle_that_lacks_what_another_is_made_from(
    bundles: Callable[..., Bundle], tmp_path: Path, mode: str, precision: str
) -> None:
    with pytest.raises(ArtifactError, match=f"is {mode} in {precision}") as caught:
        export(bundles(mode, precision).path, tmp_path / "other", ExportRequest((0.5,)))
    assert "--lambda runtime --precision fp32" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_to_which_nothing_is_done(bundles: Callable[..., Bundle], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="nothing is to be changed"):
        export(bundles("bound").path, tmp_path / "other", ExportRequest())
    assert list(tmp_path.iterdir()) == []


def test_replaces_the_bundle_it_is_made_from(old: Bundle, bundles: Callable[..., Bundle], tmp_path: Path) -> None:
    copy = export(bundles("bound").path, tmp_path / "copy", ExportRequest("runtime", "fp32"))
    again = export(copy.path, copy.path, ExportRequest((0.0, 0.5)))
    assert again.manifest.lam.values == (0.0, 0.5)
    again.files.verify()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "copy"]


class TestGate:
    """Graphs that do not compute what was trained never become a bundle, and what stood there stays."""

    @pytest.mark.parametrize("fault", ["a layer is forgotten", "lambda is ignored", "not a number"])
    def test_a_wrong_graph(
        self,
        old: Bundle,
        bundles: Callable[..., Bundle],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        fault: str,
    ) -> None:
        right = onnx_graph.with_weights

        def wrong(model, weights):
            weights = dict(weights)
            if fault == "a layer is forgotten":
                weights["blocks.1.conv2.weight"] = weights["blocks.1.conv2.weight"] * 0
            elif fault == "lambda is ignored":
                weights["head.weight"] = weights["head.weight"] * np.float32(1.01)
            else:
                weights["head.bias"] = weights["head.bias"] * np.float32(np.nan)
            return right(model, weights)

        before = tree(old.path)
        monkeypatch.setattr(onnx_graph, "with_weights", wrong)
        with pytest.raises(ParityError, match=r"lambda 0\.3") as caught:
            export(bundles("bound").path, old.path, FIXED)
        assert "Nothing was exported" in caught.value.what
        assert tree(old.path) == before
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]

    def test_half_precision_that_overflows(
        self, old: Bundle, bundles: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Weights scaled up in one layer and down in the next compute the same in fp32, and nothing in fp16."""
        right = onnx_graph.with_weights

        def scaled(model, weights):
            weights = dict(weights)
            for name in ("blocks.2.conv1.weight", "blocks.2.conv1.bias"):
                weights[name] = weights[name] * np.float32(2**17)
            weights["blocks.2.conv2.weight"] = weights["blocks.2.conv2.weight"] * np.float32(2**-17)
            return right(model, weights)

        monkeypatch.setattr(onnx_graph, "with_weights", scaled)
        export(bundles("bound").path, tmp_path / "single", FIXED)
        before = tree(old.path)
        with pytest.raises(ParityError):
            export(bundles("bound").path, old.path, ExportRequest((0.3,), "fp16"))
        assert tree(old.path) == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "single"]

    def test_interrupted(self, old: Bundle, bundles: Callable[..., Bundle], tmp_path: Path) -> None:
        before = tree(old.path)

        def interrupt(text: str) -> None:
            if "comparing" in text:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            export(bundles("bound").path, old.path, FIXED, say=interrupt)
        assert tree(old.path) == before
        assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_what_was_let_pass_is_told_of_what_is_made_from_it(bundles: Callable[..., Bundle], tmp_path: Path) -> None:
    source = Path(shutil.copytree(bundles("bound").path, tmp_path / "source"))
    write_manifest(source, bundles("bound").manifest.model_copy(update={"mismatch": "at lambda 0.5 it differed."}))
    assert export(source, tmp_path / "fixed", FIXED).manifest.let_pass == ("at lambda 0.5 it differed.",)


@pytest.mark.parametrize("other", ["recipe", "classes"])
def test_a_bundle_of_another_network_is_not_replaced(
    old: Bundle, bundles: Callable[..., Bundle], digits_run: TrainingRun, other: str
) -> None:
    manifest = old.manifest
    recipe, labels = manifest.recipe, manifest.output.labels
    if other == "recipe":
        recipe = override_recipe(recipe, ("name=other", "seed=7"))
    else:
        labels = tuple(reversed(labels))
    output = manifest.output.model_copy(update={"labels": labels})
    write_manifest(old.path, manifest.model_copy(update={"recipe": recipe, "output": output}))
    before = tree(old.path)
    for source, request in (
        (digits_run.path, FIXED),
        (bundles("bound").path, FIXED),
        (bundles("fixed").path, ExportRequest(trt=True)),
    ):
        with pytest.raises(OutputError, match=f"bundle of another network: .*, of recipe {recipe.name} and 10") as told:
            export(source, old.path, request)
        assert f"delete {old.path}" in told.value.fix
    assert tree(old.path) == before


def test_a_bundle_of_the_same_run_trained_again_is_replaced(old: Bundle, digits_run: TrainingRun) -> None:
    """Also if it is judged by other images."""
    recipe = override_recipe(old.manifest.recipe, ("name=other", "evaluate.images=7"))
    changes = {"checkpoint_sha256": "of an earlier training", "recipe": recipe}
    write_manifest(old.path, old.manifest.model_copy(update=changes))
    assert export(digits_run.path, old.path, FIXED).manifest.checkpoint_sha256 == digits_run.weights_sha256


def test_output_that_is_something_else(bundles: Callable[..., Bundle], digits_run: TrainingRun, tmp_path: Path) -> None:
    before = tree(digits_run.path)
    with pytest.raises(OutputError, match="will not be replaced"):
        export(bundles("bound").path, digits_run.path, FIXED)
    assert tree(digits_run.path) == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError):
        export(bundles("bound").path, tmp_path / "file" / "bundle", FIXED)
    assert tree(tmp_path) == {"file": b"mine"}


@pytest.mark.parametrize(("path", "said"), [("nowhere", "there is no"), (".", "holds no checkpoint")])
def test_neither_run_nor_bundle(tmp_path: Path, path: str, said: str) -> None:
    with pytest.raises(FloatsError, match=said):
        export(tmp_path / path, tmp_path / "bundle", FIXED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lam", [-0.1, 1.5, float("nan")])
def test_request_checks_its_lambdas(lam: float) -> None:
    with pytest.raises(ValueError, match="lambda must be a number"):
        ExportRequest((0.5, lam))


def test_mode_follows_from_the_lambdas() -> None:
    assert [ExportRequest(lambdas).mode for lambdas in (None, "runtime", (0.3,), (0.0, 1.0))] == [
        "bound",
        "bound",
        "fixed",
        "bank",
    ]


def test_says_what_it_does(bundles: Callable[..., Bundle], tmp_path: Path) -> None:
    said: list[str] = []
    export(bundles("bound").path, tmp_path / "bundle", FIXED, say=said.append)
    assert said == ["writing ONNX", "comparing with the trained network on 500 images"]


@pytest.mark.parametrize("lambdas", [(0.5, 0.5), tuple(index / 300 for index in range(300))])
def test_a_bank_that_no_bundle_may_state_is_refused_before_it_is_made(lambdas: tuple[float, ...]) -> None:
    with pytest.raises(LambdaError, match="a bank serves up to 256 lambdas, each once"):
        ExportRequest(lambdas)
