"""Real bundles, and what happens to them in the hands of strangers."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures.tiny_bundle import engine_entry

from floats_edge.artifacts.bundle import (
    Bundle,
    file_entries,
    is_bundle,
    open_bundle,
    staged_bundle,
    write_manifest,
)
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.manifest import Manifest
from floats_edge.errors import ArtifactError, OutputError
from floats_edge.recipe import Recipe
from floats_edge.runtime.backends import open_predictor


def network_of(bundle: Bundle) -> tuple[Recipe, tuple[str, ...]]:
    """By which a bundle may replace it."""
    return bundle.manifest.recipe, bundle.manifest.output.labels


Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def folder(bundles: Callable[..., Bundle], tmp_path: Path) -> Path:
    """A copy of a bundle in mode ``bound``, to be damaged."""
    return Path(shutil.copytree(bundles("bound").path, tmp_path / "bundle"))


def edit_manifest(folder: Path, edit: Edit) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    edit(content)
    (folder / "manifest.json").write_text(json.dumps(content))


def error_of(folder: Path) -> ArtifactError:
    with pytest.raises(ArtifactError) as caught:
        open_bundle(folder)
    assert "export it again" in caught.value.fix
    return caught.value


@pytest.mark.parametrize("mode", ["bound", "fixed", "bank"])
def test_whole(bundles: Callable[..., Bundle], mode: str) -> None:
    bundle = bundles(mode)
    assert is_bundle(bundle.path)
    again = open_bundle(bundle.path)
    again.files.verify()
    assert again.manifest == bundle.manifest
    on_disk = {path.relative_to(bundle.path).as_posix() for path in bundle.path.rglob("*") if path.is_file()}
    assert set(bundle.manifest.files) == on_disk - {"manifest.json"}


@pytest.mark.parametrize("mode", ["bound", "fixed", "bank"])
def test_manifest_survives_json(bundles: Callable[..., Bundle], mode: str) -> None:
    manifest = bundles(mode).manifest
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors", "golden.safetensors"])
def test_one_altered_bit(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    bundle = open_bundle(folder)
    for use in (bundle.files.verify, lambda: bundle.read(name)):
        with pytest.raises(ArtifactError, match=rf"{name} was altered"):
            use()


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors"])
def test_an_altered_file_never_reaches_the_runtime(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-1] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ArtifactError, match="was altered"):
        open_predictor(open_bundle(folder), "ort-cpu", 0.0)


@pytest.mark.parametrize("name", ["model.onnx", "weights.safetensors", "golden.safetensors"])
def test_truncated_or_missing_file(folder: Path, name: str) -> None:
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    assert f"{name} is truncated or altered" in error_of(folder).what
    (folder / name).unlink()
    assert f"{name} is missing" in error_of(folder).what


def test_link_out_of_the_bundle(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "model.onnx", tmp_path / "model.onnx")
    (folder / "model.onnx").symlink_to(tmp_path / "model.onnx")
    assert "leads out of its folder" in error_of(folder).what


def test_a_linked_bundle_is_fine(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    open_bundle(tmp_path / "link").files.verify()


@pytest.mark.parametrize(
    "name", ["../model.onnx", "/etc/passwd", "a/../../model.onnx", "..\\model.onnx", "", "m\0", "\x1b[2J"]
)
def test_path_that_leads_out(folder: Path, name: str) -> None:
    def point_there(content: dict[str, Any]) -> None:
        content["graphs"][0]["file"] = name
        content["files"][name] = content["files"]["model.onnx"]

    (folder.parent / "model.onnx").write_bytes((folder / "model.onnx").read_bytes())
    edit_manifest(folder, point_there)
    assert "does not name a file inside the folder" in error_of(folder).what


def with_engine(**changes: object) -> Edit:
    """List an engine that fits, but for these changes."""

    def edit(content: dict[str, Any]) -> None:
        content["engines"] = [{**engine_entry("model.onnx").model_dump(mode="json"), **changes}]

    return edit


@pytest.mark.parametrize(
    ("edit", "word"),
    [
        (lambda c: c.update(surprise=1), "surprise"),
        (lambda c: c.pop("layers"), "layers"),
        (lambda c: c.update(schema_version=3), "schema_version"),
        (lambda c: c.update(precision="int3"), "precision"),
        (lambda c: c["files"].pop("model.onnx"), "model.onnx is used but not listed"),
        (lambda c: c["files"].pop("weights.safetensors"), "weights.safetensors is used but not listed"),
        (lambda c: c["files"]["model.onnx"].update(sha256="0"), "sha256"),
        (lambda c: c["files"]["model.onnx"].update(bytes=-1), "bytes"),
        (lambda c: c.update(graphs=[]), "graphs"),
        (lambda c: c.update(weights=None), "mode bound"),
        (lambda c: c["graphs"][0].update(lam=0.3), "graph"),
        (lambda c: c["lam"].update(values=[0.5]), "mode bound"),
        (lambda c: c["lam"].update(mode="fixed"), "mode fixed"),
        (lambda c: c["layers"][0].update(shape=[-2, -8, 3, 3]), "shape"),
        (lambda c: c["layers"][0].update(shape=[2**31 + 1, 1, 3, 3]), "layers.0.shape.0"),
        (lambda c: c["layers"][0].update(nonzeros=1 + math.prod(c["layers"][0]["shape"])), "has no weight of"),
        (lambda c: c["layers"][0].update(nonzeros=-1), "nonzeros"),
        (lambda c: c["layers"][0].update(shape=[8], nonzeros=7), "has no weight of 7"),
        (lambda c: c["layers"][0].update(drawn=[4, 1, 3, 3]), "is no part of a layer of shape (4, 1, 3, 3)"),
        (lambda c: c["layers"][0].update(drawn=[99, 1, 3]), "is no part of a layer of shape (99, 1, 3)"),
        (lambda c: c["layers"][1].update(drawn=c["layers"][1]["shape"]), "must be dense"),
        (lambda c: [la.update(shape=[8], nonzeros=8) for la in c["layers"]], "no convolution and no linear layer"),
        (lambda c: c["layers"].append(c["layers"][0]), "layer stem occurs 2 times"),
        (lambda c: c["input"].update(shape=[1, -8, 8]), "input.shape.1"),
        (lambda c: c["output"].update(labels=[]), "output.labels"),
        (lambda c: c["lam"].update(noise_seed=-1), "noise_seed"),
        (lambda c: c["lam"].update(noise_seed=2**63), "noise_seed"),
        (lambda c: c["golden"].update(lambdas=[]), "golden.lambdas"),
        (lambda c: c.update(network="n" * 257), "network"),
        (lambda c: c.update(precision="int8"), "precision int8 does not go with calibration None"),
        (with_engine(batch=(4, 2, 8)), "(4, 2, 8) is no smallest, optimal and largest batch"),
        (with_engine(batch=(0, 1, 1)), "engines.0.batch.0"),
        (with_engine(batch=(1, 1, 2**31)), "larger than any memory"),
        (with_engine(lam=0.5), "model.onnx is for a lambda that does not go with mode bound"),
        (lambda c: c["golden"].update(tolerance=1e300), "golden.tolerance"),
        (lambda c: c["golden"].update(tolerance=-1), "golden.tolerance"),
        (lambda c: c["golden"].update(tolerance=float("nan")), "golden.tolerance"),
        (lambda c: c["parity"][0].update(max_error=float("inf")), "max_error"),
        (lambda c: c["parity"][0].update(lam=1.5), "lam"),
    ],
)
def test_invalid_manifest(folder: Path, edit: Edit, word: str) -> None:
    edit_manifest(folder, edit)
    assert word in error_of(folder).what


@pytest.mark.parametrize("content", [b"", b"{", b"\x00\xff", b"[]", b'{"manifest_version": 3, "name": "an extension"}'])
def test_garbage_instead_of_a_manifest(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    assert "manifest.json is not valid" in error_of(folder).what


def test_a_calibration_of_other_layers(bundles: Callable[..., Bundle], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(bundles("bound", "int8").path, tmp_path / "bundle"))
    edit_manifest(folder, lambda c: c["calibration"].update(kept=["no-such-layer"]))
    assert "no-such-layer is kept out of int8 and is no layer" in error_of(folder).what


def test_no_bundle_at_all(tmp_path: Path) -> None:
    assert not is_bundle(tmp_path)
    for path, told in ((tmp_path, "holds no manifest.json"), (tmp_path / "nowhere", "there is no ")):
        with pytest.raises(ArtifactError, match=told) as caught:
            open_bundle(path)
        assert str(path) in caught.value.what
        assert "floats-edge export" in caught.value.fix


def test_a_run_is_no_bundle(digits_run: TrainingRun) -> None:
    with pytest.raises(ArtifactError, match="is the folder of a training run") as caught:
        open_bundle(digits_run.path)
    assert f"floats-edge export {digits_run.path} -o" in caught.value.fix


def test_an_engine_that_fits_is_listed(folder: Path) -> None:
    edit_manifest(folder, with_engine())
    assert open_bundle(folder).manifest.engines == (engine_entry("model.onnx"),)


@pytest.mark.parametrize("mode", ["fixed", "bank"])
def test_lambdas_that_are_not_served(bundles: Callable[..., Bundle], tmp_path: Path, mode: str) -> None:
    folder = Path(shutil.copytree(bundles(mode).path, tmp_path / "bundle"))
    name = sorted(bundles(mode).manifest.files)[-1]
    edit_manifest(folder, with_engine(lam=0.9, file=name))
    assert f"{name} is for a lambda that does not go with mode {mode}" in error_of(folder).what
    edit_manifest(folder, lambda c: (c.update(engines=[]), c["golden"].update(lambdas=[0.9])))
    assert "golden outputs for lambdas (0.9,)" in error_of(folder).what


def test_golden_outputs_cover_every_graph(bundles: Callable[..., Bundle], tmp_path: Path) -> None:
    """Otherwise two graphs that no golden output tells apart could have changed places."""
    folder = Path(shutil.copytree(bundles("bank").path, tmp_path / "bundle"))
    edit_manifest(folder, lambda c: c["golden"].update(lambdas=c["lam"]["values"][:1]))
    assert "golden outputs for lambdas (0.0,), but (0.0, 1.0) are served" in error_of(folder).what


@pytest.mark.parametrize(
    "edit", [lambda c: c.update(surprise=1), lambda c: c.update(schema_version=3), lambda c: c.pop("layers")]
)
def test_a_bundle_of_a_newer_floats_edge_needs_a_newer_one(folder: Path, edit: Edit) -> None:
    edit_manifest(folder, lambda c: (edit(c), c.update(floats_edge_version="99.1")))
    assert error_of(folder).fix.startswith("use a newer floats-edge, or export it again")


def test_what_this_floats_edge_wrote_must_be_written_anew(folder: Path) -> None:
    edit_manifest(folder, lambda c: c.pop("layers"))
    assert error_of(folder).fix.startswith("export it again")


def test_a_manifest_that_lies_elsewhere(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "manifest.json", tmp_path / "manifest.json")
    (folder / "manifest.json").symlink_to(tmp_path / "manifest.json")
    assert "manifest.json leads out of its folder" in error_of(folder).what
    (folder / "manifest.json").unlink()
    shutil.move(tmp_path / "manifest.json", folder / "real.json")
    (folder / "manifest.json").symlink_to("real.json")
    open_bundle(folder)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_manifest_without_an_end(folder: Path, kind: str) -> None:
    (folder / "manifest.json").unlink()
    if kind == "pipe":
        os.mkfifo(folder / "manifest.json")
    else:
        (folder / "manifest.json").symlink_to("/dev/zero")
    told = {"pipe": "cannot be read: it is no regular file", "device": "leads out of its folder"}[kind]
    assert f"manifest.json {told}" in error_of(folder).what


def test_weights_of_another_bundle(folder: Path) -> None:
    """Hashes that fit do not make weights fit: the manifest may have been written for others."""
    edit_manifest(folder, lambda c: c["layers"][1].update(nonzeros=c["layers"][1]["nonzeros"] - 1))
    with pytest.raises(ArtifactError, match="do not fit the manifest"):
        open_predictor(open_bundle(folder), "ort-cpu", 0.0)


def test_density_counts_the_weights_inside_the_masks(bundles: Callable[..., Bundle]) -> None:
    assert {round(bundles(mode).manifest.density, 3) for mode in ("bound", "fixed", "bank")} == {0.3}


class TestStagedBundle:
    def test_replaces_a_bundle(self, folder: Path, bundles: Callable[..., Bundle]) -> None:
        manifest = bundles("bound").manifest
        with staged_bundle(folder, *network_of(bundles("bound"))) as staging:
            for name in manifest.files:
                shutil.copy(bundles("bound").path / name, staging / name)
            (staging / "engines").mkdir()
            (staging / "engines" / "a.plan").write_bytes(b"plan")
            write_manifest(staging, manifest.model_copy(update={"files": file_entries(staging)}))
        bundle = open_bundle(folder)
        bundle.files.verify()
        assert "engines/a.plan" in bundle.manifest.files
        assert "manifest.json" not in bundle.manifest.files

    def test_refuses_a_training_run(self, tmp_path: Path, bundles: Callable[..., Bundle]) -> None:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "checkpoint.json").write_text("{}")
        network = network_of(bundles("bound"))
        with pytest.raises(OutputError, match=r"holds no manifest\.json"), staged_bundle(tmp_path / "run", *network):
            pytest.fail("it must be refused before anything is made")
        assert [path.name for path in tmp_path.rglob("*")] == ["run", "checkpoint.json"]


def test_a_folder_that_is_not_wholly_a_bundle_is_not_replaced(tmp_path: Path, bundles: Callable[..., Bundle]) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(OutputError, match="no bundle's"), staged_bundle(app, *network_of(bundles("bound"))):
        pass
    assert (app / "manifest.json").read_text() == '{"name": "a web app"}'


def test_a_bundle_with_a_file_of_the_users_is_not_replaced(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match=r"notes\.txt"), staged_bundle(folder, *network_of(open_bundle(folder))):
        pass
    assert (folder / "notes.txt").read_text() == "mine"
