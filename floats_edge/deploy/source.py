"""What an export is made from: a trained run, or a bundle made earlier."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.checkpoint import TrainingRun
from floats_edge.artifacts.weights import unpack_weights
from floats_edge.deploy import onnx_graph
from floats_edge.deploy.lambda_graph import Network
from floats_edge.deploy.say import Say
from floats_edge.errors import ArtifactError, BackendError, add_extra
from floats_edge.images import ImageKind
from floats_edge.networks.spec import Code
from floats_edge.recipe import Recipe
from floats_edge.runtime.backends import open_predictor
from floats_edge.runtime.base import Predictor
from floats_edge.runtime.graph_check import read_graph
from floats_edge.runtime.lambda_weights import LambdaWeights

if TYPE_CHECKING:
    from floats_edge.evaluation.robustness import Twin
    from floats_edge.runtime.twin import BundleTwin

"""Told what is being done."""


@dataclass(frozen=True, eq=False)
class Source:
    """A trained network, ready to be exported in any mode and precision.

    ``reference`` computes what was trained, cut channels and all; ``network`` and ``twin`` are what is left. ``title``
    is that of the network, for people. ``mismatch`` is how far the reference is from that, if it is a bundle that was
    let pass.
    """

    network: Network
    reference: Predictor
    twin: Callable[[], "Twin"]
    title: str
    labels: tuple[str, ...]
    recipe: Recipe
    checkpoint_sha256: str
    mismatch: str | None = None

    @property
    def kind(self) -> ImageKind:
        """Which images the network takes."""
        return ImageKind(self.labels, self.reference.preprocessing)


def from_run(run: TrainingRun, code: Code, say: Say) -> Source:
    """A trained run; channels that were cut are removed.

    Raises:
        ArtifactError: the run does not fold, or is damaged.
        NetworkError: its network is of code that the user did not allow to run.
        BackendError: PyTorch is missing.
    """
    try:
        from floats_edge.runtime.torch import TorchPredictor, deployed_network, run_predictor
    except ImportError as error:
        raise BackendError(
            f"exporting a checkpoint needs PyTorch: {error}.",
            fix=f"{add_extra('train')}, or export a bundle elsewhere and add --trt to it here",
        ) from None
    say("tracing the network")
    recipe, deployed = run.checkpoint.recipe, deployed_network(run, code)
    twin = TorchPredictor(deployed.network, run.checkpoint.images.preprocessing, LambdaWeights(deployed.layers))
    return Source(
        network=Network(template=onnx_graph.trace(twin.network, twin.image_shape), layers=deployed.layers),
        reference=run_predictor(run, code=code),
        twin=lambda: twin,
        title=recipe.model.title,
        labels=run.checkpoint.labels,
        recipe=recipe,
        checkpoint_sha256=run.weights_sha256,
    )


def _twin(bundle: Bundle) -> "BundleTwin":
    try:
        from floats_edge.runtime.twin import BundleTwin
    except ImportError as error:
        raise BackendError(
            f"calibrating int8 attacks the images, which needs PyTorch: {error}.",
            fix=f"{add_extra('train')}, or export elsewhere and add --trt to the bundle here",
        ) from None
    return BundleTwin(bundle)


def from_bundle(bundle: Bundle) -> Source:
    """A bundle that holds all that another one is made of.

    Raises:
        ArtifactError: it does not.
    """
    manifest = bundle.manifest
    if manifest.weights is None or manifest.precision != "fp32":
        raise ArtifactError(
            f"{bundle.path} is {manifest.lam.mode} in {manifest.precision}: it lacks what another bundle is made from.",
            fix="export from the checkpoint, or from a bundle made with --lambda runtime --precision fp32",
        )
    layers = unpack_weights(bundle.tensors(manifest.weights), manifest.layers, manifest.lam.noise_seed)
    verdict = manifest.verdict("ort-cpu")
    found = (manifest.mismatch, *(verdict.problems if verdict else ()))
    return Source(
        network=Network(template=read_graph(bundle, manifest.graphs[0].file), layers=layers),
        reference=open_predictor(bundle, "ort-cpu", 0.0),
        twin=lambda: _twin(bundle),
        title=manifest.network,
        labels=manifest.output.labels,
        recipe=manifest.recipe,
        checkpoint_sha256=manifest.checkpoint_sha256,
        mismatch=" ".join(filter(None, found)) or None,
    )
