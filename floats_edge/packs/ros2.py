"""A package for ROS 2: a lifecycle node around the C++ kit, with the bundle inside.

The node is a component. It takes ``sensor_msgs/Image``, gives ``vision_msgs/Classification``, and its parameter
``lambda`` can be set while it runs.
"""

import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from floats_edge.artifacts.bundle import MANIFEST, Bundle
from floats_edge.errors import OutputError
from floats_edge.packs.folder import README, PackRecord, check_packable, model_name, provenance, write_pack

_SOURCES = ("package.xml", "CMakeLists.txt", "classifier.cpp")
_PACKAGE = re.compile(r"[a-z](_?[a-z0-9])+")
"""What ROS calls a package: REP 144."""


def pack_ros2(bundle: Bundle, out: Path, name: str | None) -> PackRecord:
    """Write a package at ``out`` that colcon builds; ``name`` None: after the bundle's folder.

    Raises:
        ArtifactError: a file of the bundle is not what was exported.
        ParityError: ``floats-edge verify`` found that it does not compute what it should.
        OutputError: ``out`` cannot be written or holds something else, or ``name`` is no package's.
    """
    check_packable(bundle, "ROS 2", ("fixed", "bank", "bound", "input", "refit"), ("ort-cpu",))
    return write_pack(bundle, out, "ros2", _files(bundle, _package_name(bundle, name)))


def _package_name(bundle: Bundle, name: str | None) -> str:
    usable = re.sub(r"[^a-z0-9]+", "_", (name or model_name(bundle, None)).lower()).strip("_0123456789")
    usable = usable if _PACKAGE.fullmatch(usable) else "classifier"
    if name not in (None, usable):
        raise OutputError(
            f"{name!r} cannot name a package of ROS: small letters, digits and single '_' can, a letter first.",
            fix=f"--name {usable}",
        )
    return usable


def _files(bundle: Bundle, name: str) -> Iterator[tuple[str, bytes]]:
    lambdas = bundle.manifest.lam.values or (0.0,)
    for file in _SOURCES:
        text = (resources.files("floats_edge.packs") / "ros2_package" / file).read_text(encoding="utf-8")
        yield file, text.replace("@NAME@", name).replace("@LAMBDA@", repr(lambdas[0])).encode()
    for file in bundle.manifest.files:
        yield f"bundle/{file}", bundle.read(file)
    yield f"bundle/{MANIFEST}", (bundle.path / MANIFEST).read_bytes()
    yield README, _readme(bundle, name).encode()


def _readme(bundle: Bundle, name: str) -> str:
    served = bundle.manifest.lam.values
    lambdas = "any from 0 to 1" if served is None else ", ".join(f"{lam:g}" for lam in served)
    return f"""# A classifier for ROS 2

In a workspace, with the C++ kit of floats-edge (`floats_rt`, with `Model::request_lambda`) installed:

    colcon build --packages-select {name} && . install/setup.sh
    ros2 run {name} classifier_node --ros-args -r image:=/camera/image_raw
    ros2 lifecycle set /classifier configure && ros2 lifecycle set /classifier activate
    ros2 param set /classifier lambda {(served or (0.5,))[-1]:g}

The node takes `image` (sensor_msgs/Image: rgb8, bgr8, rgba8, bgra8 or mono8, of any size) and gives `classification`
(vision_msgs/Classification: every class with its probability, the likeliest first).

| parameter | |
| --- | --- |
| `lambda` | {lambdas}; 0 is best on clean images, 1 most robust. Other numbers are refused |
| `backend` | `automatic` (default: TensorRT where the bundle has an engine), `tensorrt` or `onnxruntime` |
| `bundle` | folder of another bundle |

ONNX Runtime is the library that `FLOATS_RT_ONNXRUNTIME` names.

Whoever may set parameters sets how robust the network is. The node was compiled against the headers of rclcpp and never
run.

{provenance(bundle)}"""
