"""Pretrained tensors: real ones of ImageNet, and files that wrappers, trainers and attackers write."""

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fixtures.pretrained import efficientnet_weights, imagenet_images, mobilenet_weights
from safetensors.torch import save_file
from torch import Tensor, nn

from floats_edge.errors import NetworkError
from floats_edge.networks.build import build
from floats_edge.networks.normalize import normalize, pretrained_statistics
from floats_edge.networks.spec import NetworkSpec
from floats_edge.networks.weights import load_weights

RESNET8 = NetworkSpec(name="resnet8", arguments={"width": 4})


def network(spec: NetworkSpec = RESNET8, classes: int = 5, channels: int = 3, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return build(spec, classes, channels).eval()


Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def right_of_imagenet(trained: nn.Module, statistics: Statistics | None) -> int:
    """How many of 20 images a network classifies correctly."""
    assert statistics is not None
    normalize(trained, *statistics)
    images, labels = imagenet_images()
    with torch.no_grad():
        return int((trained(images).argmax(1) == labels).sum())


def test_mobilenet_recognises_imagenet() -> None:
    spec = NetworkSpec(source="torchvision", name="mobilenet_v2")
    trained = network(spec, classes=1000)
    report = load_weights(trained, mobilenet_weights())
    assert str(report).endswith("314 tensors taken by name, 0 of them renamed")
    assert right_of_imagenet(trained, pretrained_statistics(spec)) == 18


def test_tensors_under_foreign_names_are_taken_by_their_order() -> None:
    """Its author normalised otherwise than timm does, and BatchNorm's epsilon was TensorFlow's."""
    spec = NetworkSpec(source="timm", name="efficientnet_lite0", arguments={"bn_eps": 0.001})
    trained = network(spec, classes=1000)
    report = load_weights(trained, efficientnet_weights())
    assert report.by_order
    assert report.renamed["classifier.weight"] == "_fc.weight"
    assert "taken by their order, as no name fitted, 247 of them renamed" in str(report)
    assert right_of_imagenet(trained, ((0.5,) * 3, (0.5,) * 3)) == 18


def test_a_head_of_another_class_count_keeps_its_random_values() -> None:
    spec = NetworkSpec(source="torchvision", name="mobilenet_v2")
    mobile, fresh = network(spec, classes=10), network(spec, classes=10)
    report = load_weights(mobile, mobilenet_weights())
    assert set(report.fresh) == {"classifier.1.weight", "classifier.1.bias"}
    assert report.fresh["classifier.1.bias"] == "[1000] in the file, [10] in the network"
    assert report.skipped == {}, "what does not fit is told once"
    assert report.share == 1
    assert torch.equal(mobile.get_parameter("classifier.1.weight"), fresh.get_parameter("classifier.1.weight"))
    assert len(report.taken) == 312


def wrapped(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


WRITERS: dict[str, Callable[[dict[str, Tensor], Path], object]] = {
    "a state dict": lambda tensors, path: torch.save(tensors, path),
    "safetensors": lambda tensors, path: save_file(tensors, path),
    "half precision": lambda tensors, path: save_file(
        {name: it.half() if it.is_floating_point() else it for name, it in tensors.items()}, path
    ),
    "a trainer": lambda tensors, path: torch.save({"epoch": 3, "state_dict": wrapped(tensors, "module.")}, path),
    "Lightning and a compiler": lambda tensors, path: torch.save(
        {"state_dict": wrapped(tensors, "model._orig_mod."), "loss": torch.zeros(())}, path
    ),
    "averaged weights": lambda tensors, path: torch.save(
        {
            "model": {name: torch.zeros_like(tensor) for name, tensor in tensors.items()},
            "model_ema": wrapped(tensors, "module.") | {"n_averaged": torch.tensor(7)},
        },
        path,
    ),
}


ENTRIES = {"a trainer": "state_dict", "Lightning and a compiler": "state_dict", "averaged weights": "model_ema"}


@pytest.mark.parametrize("writer", WRITERS)
def test_tensors_come_out_of_what_wrote_them(writer: str, tmp_path: Path) -> None:
    trained, loaded = network(seed=1), network(seed=2)
    WRITERS[writer](trained.state_dict(), tmp_path / "weights")
    report = load_weights(loaded, tmp_path / "weights")
    tolerance = 1e-3 if writer == "half precision" else 0
    torch.testing.assert_close(loaded.state_dict(), trained.state_dict(), rtol=tolerance, atol=tolerance)
    assert set(report.taken) == set(trained.state_dict())
    assert report.entry == ENTRIES.get(writer, "")
    assert len(report.renamed) == (len(report.taken) if report.entry else 0)


def test_old_files_lack_the_count_of_batches(tmp_path: Path) -> None:
    tensors = {
        name: it for name, it in network(seed=1).state_dict().items() if not name.endswith("num_batches_tracked")
    }
    torch.save(tensors, tmp_path / "weights")
    report = load_weights(network(), tmp_path / "weights")
    assert (report.share, report.fresh, report.skipped) == (1, {}, {})


def test_colours_are_summed_for_images_of_one_channel(tmp_path: Path) -> None:
    colour, gray = network(seed=1), network(channels=1, seed=2)
    torch.save(colour.state_dict(), tmp_path / "weights")
    report = load_weights(gray, tmp_path / "weights")
    images = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(gray(images), colour(images.expand(2, 3, 8, 8)), rtol=1e-4, atol=1e-5)
    assert set(report.adapted) == {"stem.weight"}


@pytest.mark.parametrize(
    "other",
    [
        NetworkSpec(name="resnet8", arguments={"width": 8}),
        NetworkSpec(name="resnet14", arguments={"width": 4}),
        NetworkSpec(name="wrn-16-8", arguments={"width": 1}),
        NetworkSpec(source="torchvision", name="squeezenet1_1"),
    ],
    ids=lambda spec: spec.title,
)
def test_weights_of_another_network_are_refused_and_change_nothing(other: NetworkSpec, tmp_path: Path) -> None:
    torch.save(network(other).state_dict(), tmp_path / "weights")
    ours = network()
    before = {name: tensor.clone() for name, tensor in ours.state_dict().items()}
    with pytest.raises(NetworkError, match=r"another network: \d+% of the tensors fit"):
        load_weights(ours, tmp_path / "weights")
    torch.testing.assert_close(ours.state_dict(), before, rtol=0, atol=0)


def test_numbers_that_are_not_finite_are_refused_and_change_nothing(tmp_path: Path) -> None:
    trained, ours = network(seed=1), network()
    trained.get_parameter("head.weight").data[0, 0] = float("nan")
    torch.save(trained.state_dict(), tmp_path / "weights")
    with pytest.raises(NetworkError, match=r"head\.weight"):
        load_weights(ours, tmp_path / "weights")
    torch.testing.assert_close(ours.state_dict(), network().state_dict(), rtol=0, atol=0)


class Code:
    """Makes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("ran", "w")


def test_no_code_of_a_file_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pickled").write_bytes(pickle.dumps({"stem.weight": Code()}, protocol=2))
    torch.save({"stem.weight": Code()}, tmp_path / "saved")
    torch.save(network(), tmp_path / "whole")
    for name in ("pickled", "saved", "whole"):
        with pytest.raises(NetworkError, match="read safely") as told:
            load_weights(network(), tmp_path / name)
        assert "save_file" in told.value.fix
    assert not (tmp_path / "ran").exists()
    torch.load(tmp_path / "saved", weights_only=False)
    assert (tmp_path / "ran").exists(), "the code is real"


@pytest.mark.parametrize(
    "content", [b"", b"hello", (2**62).to_bytes(8, "little") + b"{", (10).to_bytes(8, "little") + b'{"a": 1}  ']
)
def test_what_holds_no_tensors_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(content)
    with pytest.raises(NetworkError, match="weights holds no"):
        load_weights(network(), tmp_path / "weights")
    with pytest.raises(NetworkError, match="no file"):
        load_weights(network(), tmp_path / "nowhere")


def test_a_file_without_names_is_refused(tmp_path: Path) -> None:
    torch.save([torch.zeros(3)], tmp_path / "weights")
    with pytest.raises(NetworkError, match="no named tensors"):
        load_weights(network(), tmp_path / "weights")
