"""A session with bound buffers: on the CPU for real, on a GPU by a stand-in that copies what it is given when bound."""

import time

import numpy as np
import onnxruntime
import pytest
from fixtures.tiny_bundle import images, write_bundle

from floats_edge.runtime.base import DEFAULT_HOST, Host
from floats_edge.runtime.ort_session import BoundSession, open_session


class GpuBinding:
    """As a binding on a GPU: an input in host memory is copied over when it is bound, and never again."""

    def __init__(self) -> None:
        self.on_gpu: dict[str, np.ndarray] = {}
        self.arrived: dict[str, np.ndarray] = {}

    def bind_ortvalue_input(self, name, value):
        self.on_gpu[name] = value.numpy().copy()

    def bind_ortvalue_output(self, name, value):
        self.output = value

    def synchronize_inputs(self):
        self.arrived = dict(self.on_gpu)

    def synchronize_outputs(self):
        self.output.update_inplace(self.logits)


class GpuSession:
    """Computes on the CPU what a GPU would of what has arrived there."""

    def __init__(self, session) -> None:
        self.session = session

    def io_binding(self):
        return GpuBinding()

    def run_with_iobinding(self, binding):
        binding.logits = self.session.run(None, binding.arrived)[0]


@pytest.fixture
def bundle(tmp_path):
    return write_bundle(tmp_path / "bundle", (0.3,))


def opened(bundle, host):
    session = open_session(bundle.read(bundle.manifest.graphs[0].file), bundle, "ort-cpu", host)
    return BoundSession(session, bundle, "ort-cpu")


@pytest.fixture
def on_cpu(bundle):
    """A real session."""
    return opened(bundle, DEFAULT_HOST)


def test_images_go_to_a_gpu_anew_for_every_inference(bundle, on_cpu):
    session = BoundSession(GpuSession(on_cpu.session), bundle, "ort-cuda")
    for some in (images(2), images(4)[2:], images(3), images(2)):
        np.testing.assert_array_equal(session.infer(some), on_cpu.infer(some))


def test_on_the_cpu_inputs_are_bound_once_for_a_batch(on_cpu, monkeypatch):
    bound, bind = [], onnxruntime.IOBinding.bind_ortvalue_input
    monkeypatch.setattr(
        onnxruntime.IOBinding, "bind_ortvalue_input", lambda self, *given: (bound.append(given[0]), bind(self, *given))
    )
    first = on_cpu.infer(images(2))
    assert not np.array_equal(on_cpu.infer(images(4)[2:]), first)
    np.testing.assert_array_equal(on_cpu.infer(images(2)), first)
    assert bound == ["images"]
    on_cpu.infer(images(3))
    assert bound == ["images", "images"]


@pytest.mark.parametrize(("backend", "sparse"), [("ort-cuda", frozenset()), ("ort-rtx", None)])
def test_what_is_not_known_of_kernels_for_two_of_four_is_not_told(bundle, tmp_path, backend, sparse):
    traced = BoundSession(opened(bundle, Host(trace_to=tmp_path)).session, bundle, backend)
    assert traced.kernels(images(2), 2).sparse == sparse


def test_idle_threads_leave_the_cores_to_others(bundle):
    session = opened(bundle, Host(threads=2))
    session.infer(images(2))
    start = time.process_time()
    time.sleep(0.2)
    assert time.process_time() - start < 0.01
