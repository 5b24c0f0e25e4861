"""Model repositories, read by the message type that Triton reads them with, and run by ONNX Runtime."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from fixtures.tiny_bundle import CLASSES, IMAGE_SHAPE, engine_entry

from floats_edge.artifacts.bundle import Bundle, file_entries, open_bundle, write_manifest
from floats_edge.artifacts.files import write_atomic
from floats_edge.artifacts.manifest import Engine, Mode
from floats_edge.errors import ArtifactError, BackendError
from floats_edge.packs.triton import TritonRequest, pack_triton
from floats_edge.recipe_file import override_recipe
from floats_edge.runtime.golden import read_golden

config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="tritonclient[grpc] is not installed")
FP32 = config_pb2.DataType.Value("TYPE_FP32")


def read(model: Path) -> Any:
    """``config.pbtxt`` as Triton reads it: an unknown field or a wrong type is an error."""
    from google.protobuf import text_format

    return text_format.Parse((model / "config.pbtxt").read_text(), config_pb2.ModelConfig())


def tensors(values: Any) -> dict[str, tuple[int, list[int]]]:
    return {value.name: (value.data_type, list(value.dims)) for value in values}


def check_golden(model: Path, bundle: Bundle, lam: float, takes_lambda: bool = False) -> None:
    golden = read_golden(bundle)
    session = onnxruntime.InferenceSession(model / "1" / "model.onnx")
    feed = {"images": golden.images} | ({"lambda": np.array(lam, np.float32)} if takes_lambda else {})
    (logits,) = session.run(["logits"], feed)
    assert np.abs(logits - golden.logits[lam]).max() <= golden.tolerance * np.ptp(golden.logits[lam])


def test_fixed(tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = tiny("fixed")
    pack_triton(bundle, tmp_path / "models", TritonRequest())
    config = read(tmp_path / "models" / "animals")
    assert (config.name, config.backend, config.max_batch_size) == ("animals", "onnxruntime", 8)
    assert tensors(config.input) == {"images": (FP32, list(IMAGE_SHAPE))}
    assert tensors(config.output) == {"logits": (FP32, [CLASSES])}
    assert config.HasField("dynamic_batching")
    assert config.parameters["floats_edge.lambda"].string_value == "0.3"
    (output,) = config.output
    labels = tmp_path / "models" / "animals" / output.label_filename
    assert labels.read_text().splitlines() == list(bundle.manifest.output.labels)
    check_golden(tmp_path / "models" / "animals", bundle, 0.3)


def test_each_lambda_of_a_bank_is_a_model(tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = tiny("bank")
    pack_triton(bundle, tmp_path / "models", TritonRequest("zoo", batch=1))
    models = {path.name: path for path in (tmp_path / "models").iterdir() if path.is_dir()}
    assert sorted(models) == ["zoo-lambda-0.0", "zoo-lambda-0.5"]
    for name, model in models.items():
        config = read(model)
        assert (config.name, config.max_batch_size) == (name, 1)
        assert not config.HasField("dynamic_batching")
        check_golden(model, bundle, float(config.parameters["floats_edge.lambda"].string_value))


def test_a_model_that_takes_lambda_is_not_batched(tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    bundle = tiny("input")
    pack_triton(bundle, tmp_path / "models", TritonRequest())
    config = read(tmp_path / "models" / "animals")
    assert config.max_batch_size == 0
    assert not config.HasField("dynamic_batching")
    assert tensors(config.input) == {"images": (FP32, [-1, *IMAGE_SHAPE]), "lambda": (FP32, [1])}
    assert not any(value.optional for value in config.input)
    assert tensors(config.output) == {"logits": (FP32, [-1, CLASSES])}
    assert "let your own service set it" in (tmp_path / "models" / "README.md").read_text()
    for lam in bundle.manifest.golden.lambdas:
        check_golden(tmp_path / "models" / "animals", bundle, lam, takes_lambda=True)
    with pytest.raises(ArtifactError, match="a batch has one lambda"):
        pack_triton(bundle, tmp_path / "batched", TritonRequest(batch=4))


@pytest.mark.parametrize("mode", ["bound", "refit"])
def test_weights_from_outside_are_refused_with_the_export_that_helps(
    mode: Mode, tiny: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = tiny(mode)
    with pytest.raises(ArtifactError, match=f"in mode {mode}") as error:
        pack_triton(bundle, tmp_path / "models", TritonRequest())
    assert f"floats-edge export {bundle.path} -o BANK --lambda 0 --lambda 0.5" in error.value.fix
    assert "--switch input" in error.value.fix


def test_the_export_that_helps_asks_for_images_that_nobody_can_find(
    tiny: Callable[..., Bundle], tmp_path: Path
) -> None:
    kept = tiny("bound")
    recipe = override_recipe(kept.manifest.recipe, ("data.dataset=folder",))
    bundle = Bundle(kept.path, kept.manifest.model_copy(update={"recipe": recipe}))
    with pytest.raises(ArtifactError) as error:
        pack_triton(bundle, tmp_path / "models", TritonRequest())
    assert f"floats-edge export {bundle.path} --data-dir IMAGES -o BANK" in error.value.fix


def test_what_is_no_source_of_another_bundle_is_not_named_as_one(tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError) as error:
        pack_triton(tiny("bound", "fp16"), tmp_path / "models", TritonRequest())
    assert "floats-edge export CHECKPOINT --precision fp16 -o BANK" in error.value.fix


def test_bf16_is_for_tensorrt(tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="bf16"):
        pack_triton(tiny("fixed", "bf16"), tmp_path / "models", TritonRequest())


def test_names_of_strangers_stay_text(tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    name = 'logits" dims: [ 1 ] } # \\'
    output = {"name": name, "dtype": "float32", "labels": ("a", 'b"', "ä\u2028ö")}
    pack_triton(tiny("fixed", output=output), tmp_path / "models", TritonRequest())
    config = read(tmp_path / "models" / "animals")
    assert tensors(config.output) == {name: (FP32, [3])}
    assert (tmp_path / "models/animals/labels.txt").read_text().split("\n") == ["a", 'b"', "ä\u2028ö", ""]


def with_engines(bundle: Bundle, *engines: Engine) -> Bundle:
    for engine in engines:
        write_atomic(bundle.path / engine.file, engine.file.encode())
    update = {"engines": engines, "files": file_entries(bundle.path)}
    write_manifest(bundle.path, bundle.manifest.model_copy(update=update))
    return open_bundle(bundle.path)


def test_an_engine_is_packed_with_the_machine_it_is_for(tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    others = (
        engine_entry("rtx.plan", lam=0.3, flavour="tensorrt_rtx"),
        engine_entry("dla.plan", lam=0.3, dla=0),
        engine_entry("host.plan", lam=0.3, compatibility=("version",)),
    )
    bundle = with_engines(tiny("fixed"), *others, engine_entry("good.plan", lam=0.3, gpu="Orin"))
    pack_triton(bundle, tmp_path / "models", TritonRequest(backend="tensorrt"))
    config = read(tmp_path / "models" / "animals")
    assert (config.backend, config.max_batch_size) == ("tensorrt", 8)
    assert (tmp_path / "models/animals/1/model.plan").read_text() == "good.plan"
    assert "TensorRT 10.3.0 on Orin, sm_86, sm_87" in (tmp_path / "models/README.md").read_text()
    without = with_engines(bundle, *others)
    with pytest.raises(BackendError, match="no engine of the full TensorRT for lambda"):
        pack_triton(without, tmp_path / "models", TritonRequest(backend="tensorrt"))


@pytest.mark.parametrize(
    ("batch", "asked", "mend"), [((2, 4, 8), None, "--batch 1:4:8"), ((1, 4, 8), 16, "--batch 1:4:16")]
)
def test_batches_that_an_engine_does_not_take_are_refused(
    batch: tuple[int, int, int], asked: int | None, mend: str, tiny: Callable[..., Bundle], tmp_path: Path
) -> None:
    bundle = with_engines(tiny("fixed"), engine_entry(lam=0.3, batch=batch))
    with pytest.raises(BackendError, match="takes batches of") as error:
        pack_triton(bundle, tmp_path / "models", TritonRequest(backend="tensorrt", batch=asked))
    assert error.value.fix == f"floats-edge export {bundle.path} -o {bundle.path} --trt {mend}"


def test_an_engine_that_takes_lambda_is_not_packed(tiny: Callable[..., Bundle], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="Triton's tensorrt backend cannot serve"):
        pack_triton(tiny("input"), tmp_path / "models", TritonRequest(backend="tensorrt"))
