from pathlib import Path

import pytest
from fixtures.rtx import plan_layers
from fixtures.tiny_bundle import add_engine, build_engines, engine_entry, images, write_bundle

from floats_edge.artifacts.manifest import Precision
from floats_edge.deploy.engine_request import EngineOptions
from floats_edge.profiling.layers import join_layers
from floats_edge.profiling.workload import Workload, layer_workloads
from floats_edge.runtime.base import Kernels
from floats_edge.runtime.trt import open_trt
from floats_edge.runtime.trt_kernels import kernel_origins

INSPECTED = Path(__file__).parents[2] / "fixtures" / "inspected_engine.json"


@pytest.fixture
def reported(fake_driver, monkeypatch, tmp_path):
    """Kernels of an engine of which the inspector tells what a file holds; each takes 1 µs more than the one before."""
    monkeypatch.setenv("FAKE_TENSORRT_INSPECTED", str(INSPECTED))
    bundle = write_bundle(tmp_path / "bundle", (0.3,))
    plan = b"[1, 8]\n" + bundle.read(bundle.manifest.graphs[0].file)
    with open_trt(add_engine(bundle, engine_entry("a.plan", lam=0.3, batch=(1, 4, 8)), plan), 0.3) as predictor:
        return predictor.kernels(images(2), 3)


def test_metadata_names_the_nodes_that_a_kernel_was_made_of(reported: Kernels) -> None:
    assert reported.origins == {
        "__myl_CorrMulAddRelu_myl0_1": ("node_of_weight.dequantized", "node_conv2d", "node_relu"),
        "node_conv2d_1_U3_myl0_2": ("node_conv2d_1",),
        "node_conv2d_2_myl0_3": ("node_relu_1", "node_conv2d_2", "node_add", "node_relu_2"),
        "node_conv2d_3 || node_conv2d_4 + node_relu_3_myl0_4": ("node_conv2d_3", "node_conv2d_4", "node_relu_3"),
        "__myl_MoveConc_myl0_5": ("node_conv2d_4",),
        "__myl_Mean_myl0_6": ("node_mean",),
        "__myl_FcAdd_myl0_7": ("node_linear",),
    }
    assert reported.sparse == {"node_conv2d_3 || node_conv2d_4 + node_relu_3_myl0_4"}


def test_every_layer_of_a_network_has_the_time_of_its_kernels(reported: Kernels) -> None:
    def layer(name: str, *followers: str) -> Workload:
        return Workload(name, "Conv", "fp32", (f"node_{name}", f"{name}.output"), 1, 1, 1, 1, 1, followers)

    names = ("conv2d", "conv2d_2", "conv2d_3", "conv2d_4", "linear")
    layers = [*map(layer, names), layer("conv2d_1", "node_relu_1")]
    times = {joined.name: joined.time_us for joined in join_layers(reported, layers, batch=1)}
    assert times == pytest.approx(
        {
            "conv2d_3 + conv2d_4": 5 + 6,
            "linear": 8,
            "__myl_Mean_myl0_6": 7,
            "conv2d_2": 4,
            "conv2d_1": 3,
            "conv2d": 2,
            "__myl_Move_myl0_0": 1,
        }
    )


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_plans_of_tensorrt_rtx_name_every_layer(precision: Precision, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (x86-64 only)")
    bundle = build_engines(write_bundle(tmp_path / "bundle", (0.3,), precision), EngineOptions(batch=(1, 4, 8)))
    (engine,) = bundle.manifest.engines
    layers = plan_layers(bundle.read(engine.file))
    kernels = Kernels({layer["Name"]: [1.0] for layer in layers}, "a plan", None, kernel_origins(layers))
    workloads = layer_workloads(bundle)
    names = {layer.name for layer in join_layers(kernels, workloads, batch=1)}
    assert {work.name for work in workloads} == {"stem", "classifier"} <= names
    assert names.isdisjoint({"node_of_images.half", "relu"})
