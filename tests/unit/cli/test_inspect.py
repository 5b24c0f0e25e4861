"""``floats-edge inspect`` on bundles, runs and records, sound and tampered with."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fixtures.records import DIGITS, answers
from fixtures.tiny_bundle import IMAGE_SHAPE, add_engine, engine_entry, write_bundle

from floats_edge.artifacts.bundle import Bundle, keep_verdict
from floats_edge.artifacts.checkpoint import Epoch, TrainingRun, save_run
from floats_edge.artifacts.manifest import Engine, SparseTactics, Verdict, Withstood
from floats_edge.artifacts.records import Evaluation, bundle_subject, save_record
from floats_edge.cli.main import cli
from floats_edge.networks.spec import ImageSpec
from floats_edge.preprocessing import Preprocessing
from floats_edge.recipe_file import load_recipe


def inspect(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(cli, ["inspect", *map(str, arguments)])


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    engine = Engine(
        file="model.plan",
        lam=None,
        flavour="tensorrt_rtx",
        version="1.7.1",
        platform="linux-x86_64",
        targets=("sm_86", "sm_89"),
        precision="fp32",
        batch=(1, 8, 32),
    )
    return add_engine(write_bundle(tmp_path / "bundle", None), engine, b"not for loading")


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "passed"),
        ({"problems": ("It differs.", "It is slow.")}, "failed: It differs. It is slow."),
        ({"problems": ("It differs.",), "let_pass": True}, "let pass: It differs."),
        ({"problems": ("No numbers.",), "results": ()}, "failed: No numbers."),
    ],
)
def test_says_what_verify_found(bundle: Bundle, fields: dict[str, Any], told: str) -> None:
    found = {
        "backend": "trt",
        "library": "tensorrt 10.3.0 on sm_87",
        "images": 8,
        "attack": bundle.manifest.recipe.evaluate.attack,
        "queries": 5,
        "results": (Withstood(lam=0.25, clean=7, robust=2, square=5),),
        "problems": (),
    }
    keep_verdict(bundle, Verdict.model_validate({**found, **fields}))
    text = inspect(bundle.path).stdout
    line = next(line for line in text.splitlines() if line.startswith("trt "))
    assert told in line
    assert "tensorrt 10.3.0 on sm_87" in line
    if "results" not in fields:
        assert line.split()[6:10] == ["0.25", "87.5", "25.0", "62.5"]


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({}, "not recorded"),
        ({"compatibility": ("version", "ampere+")}, "tensorrt 10.3.0 or newer"),
        ({"compatibility": ("version", "ampere+")}, "sm_86, sm_87, Ampere or newer"),
        ({"dla": 1}, "sm_86, sm_87, DLA 1"),
        ({"dla": 1, "dla_layers": 3}, "sm_86, sm_87, DLA 1: 3 layers"),
        ({"gpu": "Orin"}, "sm_86, sm_87 (Orin)"),
        ({"sparse": SparseTactics(layers=("stem", "classifier"), eligible=2, chosen=0, unknown=None)}, "2, 2, 0"),
        ({"sparse": SparseTactics(layers=(), eligible=None, chosen=None, unknown="why")}, "0, unknown, unknown: why"),
    ],
)
def test_says_what_an_engine_is_for(tmp_path: Path, fields: dict[str, Any], told: str) -> None:
    bundle = add_engine(write_bundle(tmp_path / "bundle", None), engine_entry(**fields), b"not for loading")
    result = CliRunner(env={"COLUMNS": "300"}).invoke(cli, ["inspect", str(bundle.path)])
    assert result.exit_code == 0, result.output
    assert told in result.stdout


@pytest.fixture
def training_run(tmp_path: Path) -> TrainingRun:
    mask = np.zeros((4, 3, 3, 3), dtype=bool)
    mask.reshape(-1)[:27] = True
    images = ImageSpec(preprocessing=Preprocessing().resolved(IMAGE_SHAPE), mean=(0, 0, 0), std=(1, 1, 1))
    epoch = Epoch(
        epoch=1,
        loss=1.5,
        clean_loss=1.0,
        robust_loss=2.0,
        clean_accuracy=60.0,
        robust_accuracy=30.0,
        density=0.25,
        swapped=3,
        learning_rate=0.1,
        alpha={"stem": 0.25},
        images_per_s=100.0,
        seconds=1.0,
    )
    weights = {"stem.weight.theta": mask.astype(np.float32), "stem.weight.mask": mask}
    return save_run(tmp_path / "run", load_recipe("quickstart"), images, tuple("abcde"), (epoch,), weights, {})


class TestBundle:
    def test_tables(self, bundle: Bundle) -> None:
        result = inspect(bundle.path)
        assert result.exit_code == 0, result.output
        for text in (
            "tiny, 5 classes",
            "images: float32 [N, 3, 8, 8] in [0, 1]",
            "a, b, c, d, e",
            "any in [0, 1]",
            "bound, rule interpolate, noise seed 7",
            f"{bundle.manifest.density:.2%}",
            "tensorrt_rtx 1.7.1",
            "linux-x86_64: sm_86, sm_89",
            "1/8/32",
            "every hash verified",
        ):
            assert text in result.output
        stem = bundle.manifest.layers[0]
        assert f"{stem.nonzeros / 216:.2%}" in next(line for line in result.output.splitlines() if line[:4] == "stem")

    def test_json_holds_the_manifest(self, bundle: Bundle) -> None:
        content = json.loads(inspect(bundle.path, "--json").output)
        assert content["kind"] == "bundle"
        assert content["density"] == bundle.manifest.density
        assert content["manifest"] == json.loads((bundle.path / "manifest.json").read_text())

    def test_its_manifest_stands_for_it(self, bundle: Bundle) -> None:
        assert inspect(bundle.path / "manifest.json").output == inspect(bundle.path).output

    def test_served_lambdas_are_listed(self, tmp_path: Path) -> None:
        assert "0, 0.3, 1" in inspect(write_bundle(tmp_path / "bank", (0.0, 0.3, 1.0)).path).output

    @pytest.mark.parametrize("name", ["model.plan", "weights.safetensors", "model.onnx"])
    def test_a_tampered_file_is_named(self, bundle: Bundle, name: str) -> None:
        data = bytearray((bundle.path / name).read_bytes())
        data[-1] ^= 1
        (bundle.path / name).write_bytes(data)
        result = inspect(bundle.path)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert f"{bundle.path / name} was altered" in result.stderr

    def test_a_missing_file_is_named(self, bundle: Bundle) -> None:
        (bundle.path / "model.onnx").unlink()
        result = inspect(bundle.path)
        assert result.exit_code == 1
        assert f"{bundle.path / 'model.onnx'} is missing" in result.stderr

    def test_text_of_a_stranger_is_shown_as_it_is(self, bundle: Bundle) -> None:
        manifest = bundle.path / "manifest.json"
        whole = manifest.read_text()
        manifest.write_text(whole.replace('"a"', '"[red]a"'))
        assert "[red]a" in inspect(bundle.path).output
        manifest.write_text(whole.replace('"a"', '"\\u001b[2Ja"'))
        result = inspect(bundle.path)
        assert result.exit_code == 1
        assert "\x1b" not in result.output
        assert "holds a control character" in result.output

    def test_needs_no_torch_and_loads_no_engine(self, bundle: Bundle) -> None:
        blocked = ("torch", "tensorrt", "tensorrt_rtx", "onnxruntime")
        program = (
            f"import sys; sys.modules.update(dict.fromkeys({blocked})); from floats_edge.cli.main import main; main()"
        )
        subprocess.run((sys.executable, "-c", program, "inspect", bundle.path), check=True, capture_output=True)


class TestRun:
    def test_tables(self, training_run: TrainingRun) -> None:
        result = inspect(training_run.path)
        assert result.exit_code == 0, result.output
        for text in ("1 of 20", "at most 30.0 %", "25.00%", "stem", "4, 3, 3, 3", "weights-0001.safetensors"):
            assert text in result.output

    def test_json_holds_the_checkpoint(self, training_run: TrainingRun) -> None:
        content = json.loads(inspect(training_run.path / "checkpoint.json", "--json").output)
        assert content["kind"] == "run"
        assert content["checkpoint"] == json.loads((training_run.path / "checkpoint.json").read_text())

    def test_a_tampered_file_is_named(self, training_run: TrainingRun) -> None:
        file = training_run.path / training_run.checkpoint.state
        file.write_bytes(b"\0" * file.stat().st_size)
        result = inspect(training_run.path)
        assert result.exit_code == 1
        assert f"{file} was altered" in result.stderr


class TestRecord:
    @pytest.fixture
    def record(self, bundle: Bundle) -> Path:
        recipe = load_recipe("quickstart")
        evaluation = Evaluation(
            subject=bundle_subject(bundle),
            backend="ort-cpu",
            dataset="digits",
            split="test",
            attack=recipe.evaluate.attack,
            attacked="twin",
            seed=0,
            labels=DIGITS,
            results=(answers(0.5, 90, 40, each=10),),
            versions={},
        )
        save_record(evaluation, bundle.path.parent / "evaluation.json")
        return bundle.path.parent / "evaluation.json"

    def test_tables(self, record: Path) -> None:
        result = inspect(record)
        assert result.exit_code == 0, result.output
        assert "90.0" in result.output
        assert "upper bound" in result.output

    def test_json_is_the_record(self, record: Path) -> None:
        assert json.loads(inspect(record, "--json").output) == json.loads(record.read_text())

    def test_other_json(self, tmp_path: Path) -> None:
        (tmp_path / "other.json").write_text("{}")
        result = inspect(tmp_path / "other.json")
        assert result.exit_code == 1
        assert f"{tmp_path / 'other.json'} is not valid" in result.stderr


def test_an_ordinary_folder(tmp_path: Path) -> None:
    result = inspect(tmp_path)
    assert result.exit_code == 1
    assert f"{tmp_path} holds neither a manifest.json nor a checkpoint.json" in result.stderr
