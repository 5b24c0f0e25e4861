"""All of ours around an engine, on real streams where TensorRT cannot be had: PyTorch computes in its place.

Streams, copies, bound and refitted weights, CUDA graphs and page-locked memory are CUDA's own; the rest runs without a
GPU too, in the memory of the stand-in of pycuda, where what is put into a stream happens when somebody waits for it.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from fixtures.fake_cuda_runtime import FakeRuntime
from fixtures.parity import TOLERANCE, error
from fixtures.tiny_bundle import MODES_AND_PRECISIONS, graph_bytes, images, with_plans, write_bundle
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from floats_edge.artifacts.bundle import Bundle
from floats_edge.runtime.base import Host
from floats_edge.runtime.cuda import cuda_unavailable_reason, open_cuda
from floats_edge.runtime.ort import open_ort
from floats_edge.runtime.trt import open_trt
from floats_edge.runtime.trt_lambda import RefittedWeights

VALUES = {"fixed": (0.3,), "bank": (0.0, 0.5, 1.0)}
ANY = (0.0, 1.0, 0.25)
GRAPH = Host(cuda_graph=True)


@dataclass(frozen=True)
class Card:
    """Where the stand-in computes.

    Attributes:
        target: its compute capability.
        is_page_locked: whether it can copy an array without staging it.
        settle: lets go of what PyTorch keeps of it for later.
    """

    target: str
    is_page_locked: Callable[[np.ndarray], bool]
    settle: Callable[[], object]


def settle_gpu() -> None:
    torch._C._cuda_clearCublasWorkspaces()  # of every stream there was
    torch.cuda.empty_cache()


@pytest.fixture(params=["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def card(request, fake_driver, monkeypatch) -> Card:
    if request.param != "cpu" and not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device")
    monkeypatch.setenv("FAKE_TENSORRT_PYTORCH", request.param)
    importlib.import_module("tensorrt")
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)  # of the bindings only cuda-python has CUDA graphs
    if request.param == "cpu":
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", FakeRuntime(fake_driver))
        return Card("sm_87", lambda array: array.ctypes.data in fake_driver.pinned, lambda: None)
    if (reason := cuda_unavailable_reason()) is not None:
        pytest.skip(reason)
    with open_cuda() as cuda:
        return Card(cuda.target, lambda array: torch.from_numpy(array).is_pinned(), settle_gpu)


@pytest.fixture
def make(card, tmp_path) -> Callable[..., Bundle]:
    def made(mode: str, precision: str = "fp32", batch: tuple[int, int, int] = (1, 4, 8)) -> Bundle:
        bundle = write_bundle(tmp_path / "bundle", VALUES.get(mode), precision, mode)
        return with_plans(bundle, batch, precision=precision, targets=(card.target,))

    return made


@pytest.mark.parametrize(("mode", "precision"), MODES_AND_PRECISIONS)
def test_it_computes_what_onnx_runtime_does_at_every_lambda_and_back(make, mode, precision):
    bundle = make(mode, precision)
    lambdas = VALUES.get(mode, ANY)
    with open_trt(bundle, lambdas[0]) as predictor, open_ort(bundle, "ort-cpu", lambdas[0]) as reference:
        for lam in (*lambdas, lambdas[0]):
            predictor.set_lambda(lam)
            reference.set_lambda(lam)
            for count in (1, 8, 19):
                wanted = reference.predict(images(count))
                assert error(predictor.predict(images(count)), wanted) <= TOLERANCE[precision]


@pytest.mark.parametrize(("mode", "precision"), MODES_AND_PRECISIONS)
def test_a_cuda_graph_computes_the_same(make, mode, precision):
    bundle = make(mode, precision)
    lambdas = VALUES.get(mode, ANY)
    with open_trt(bundle, lambdas[0], GRAPH) as graph, open_trt(bundle, lambdas[0]) as plain:
        for lam in (*lambdas, *lambdas):
            graph.set_lambda(lam)
            plain.set_lambda(lam)
            for count in (3, 3, 8, 19, 3):
                assert error(graph.predict(images(count)), plain.predict(images(count))) <= TOLERANCE["fp32"]


@pytest.mark.parametrize("host", [Host(), GRAPH], ids=["plain", "CUDA graph"])
@pytest.mark.parametrize("mode", ["bound", "input", "refit"])
def test_switching_changes_the_logits_and_switching_back_restores_them(make, mode, host):
    with open_trt(make(mode), 0.0, host) as predictor:
        for count in (4, 4):  # the first records, the second launches
            clean = predictor.predict(images(count))
        predictor.set_lambda(1.0)
        assert error(predictor.predict(images(4)), clean) > 0.01
        predictor.set_lambda(0.0)
        assert error(predictor.predict(images(4)), clean) <= TOLERANCE["fp32"]


@pytest.mark.parametrize("memory", ["DEVICE", "HOST"])
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_weights_are_refitted_from_device_and_from_host_memory(make, monkeypatch, precision, memory):
    take = RefittedWeights._take
    monkeypatch.setattr(RefittedWeights, "_take", lambda *call: call[-1] == memory and take(*call))
    bundle = make("refit", precision)
    with open_trt(bundle, 0.0) as predictor, open_ort(bundle, "ort-cpu", 0.0) as reference:
        assert predictor._lambda.location == memory
        for lam in (1.0, 0.25, 0.0):
            predictor.set_lambda(lam)
            reference.set_lambda(lam)
            assert error(predictor.predict(images(8)), reference.predict(images(8))) <= TOLERANCE[precision]


@pytest.mark.parametrize("host", [Host(), GRAPH], ids=["plain", "CUDA graph"])
def test_two_predictors_do_not_disturb_each_other(make, host):
    bundle = make("bound")
    with open_trt(bundle, 0.0, host) as clean, open_trt(bundle, 1.0, host) as robust:
        wanted = [predictor.predict(images(4)) for predictor in (clean, robust)]
        for _ in range(5):
            for predictor, logits in zip((clean, robust), wanted, strict=True):
                assert error(predictor.predict(images(4)), logits) <= TOLERANCE["fp32"]
    assert error(*wanted) > 0.01


def test_closing_gives_the_memory_back(card, make):
    """Each predictor takes 12 MiB on the device; what it leaves of a fake one, the fixture finds."""
    bundle = make("bound", batch=(1, 4, 2**14))

    def used() -> None:
        with open_trt(bundle, 0.0, GRAPH) as predictor:
            for _ in range(2):
                predictor.predict(images(8))
        card.settle()

    used()
    with open_cuda() as cuda:
        before, _ = cuda.memory_info()
        for _ in range(5):
            used()
        after, _ = cuda.memory_info()
    assert before - after < 16 * 2**20


@pytest.mark.parametrize("host", [Host(), GRAPH], ids=["plain", "CUDA graph"])
def test_events_time_what_the_device_does(make, host):
    with open_trt(make("bound"), 0.5, host) as predictor:
        times = [predictor.device_ms(images(8)) for _ in range(5)]
        assert all(time > 0 for time in times)
        assert predictor.device_ms(images(9)) is None


def test_page_locked_memory_is(card):
    with open_cuda() as cuda:
        assert card.is_page_locked(cuda.pinned((4, 3), np.float32))
        assert not card.is_page_locked(np.zeros((4, 3), np.float32))


class Captured(TorchDispatchMode):
    """Fails at what cannot be captured: numbers that go from the host to the device.

    The device is ``meta``, where there are shapes alone: PyTorch itself fails at what would wait for numbers from it.
    """

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        copies = function.overloadpacket in (torch.ops.aten.copy_, torch.ops.aten._to_copy)
        places = {tensor.device.type for tensor in tensors if tensor.dim() or copies}  # a kernel takes single numbers
        assert len(places) < 2, f"{function} is on the host and on the device"
        return result


class OnMeta:
    """What is put into a stream is captured."""

    def put(self, stream, work):
        with Captured():
            work()

    def is_captured(self, stream):
        return False

    def memory(self, pointer, size):
        return torch.empty(size, dtype=torch.uint8, device="meta")


@pytest.mark.parametrize(("mode", "precision"), MODES_AND_PRECISIONS)
def test_an_inference_can_be_captured(fake_driver, monkeypatch, mode, precision):
    monkeypatch.setenv("FAKE_TENSORRT_PYTORCH", "meta")
    trt = importlib.import_module("tensorrt")
    monkeypatch.setattr("tensorrt.runtime.DEVICE", OnMeta())
    (lam, *_) = VALUES.get(mode, (None,))
    context = trt.Engine([1, 8], graph_bytes(lam, precision, mode)).create_execution_context()
    assert all(context.set_tensor_address(name, 256) for name in context.engine.tensors)
    assert context.set_input_shape("images", images(8).shape)
    assert context.execute_async_v3(0)
    assert len(trt.LAUNCHES) == 1
