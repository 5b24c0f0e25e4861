"""A graph that gives probabilities: for programs that know no logits."""

import onnx

from floats_edge.artifacts.bundle import EXPORT_AGAIN, Bundle
from floats_edge.errors import ArtifactError
from floats_edge.runtime.graph_check import read_graph

PROBABILITIES = "probabilities"


def with_probabilities(bundle: Bundle, file: str) -> bytes:
    """A graph of ``bundle`` whose output is the softmax of its logits ``[N, classes]``.

    Raises:
        ArtifactError: the file is not what was exported, no such graph, or one that has such a name already.
    """
    model, logits = read_graph(bundle, file), bundle.manifest.output.name
    _check_free(model.graph, bundle)
    for output in model.graph.output:
        if output.name == logits:
            output.name = PROBABILITIES
    node = onnx.helper.make_node("Softmax", [logits], [PROBABILITIES], axis=-1, name=PROBABILITIES)
    model.graph.node.append(node)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        what = f"the graph {bundle.path / file} does not give the logits of its manifest: {error}."
        raise ArtifactError(what, fix=EXPORT_AGAIN) from None
    return model.SerializeToString(deterministic=True)


def _check_free(graph: onnx.GraphProto, bundle: Bundle) -> None:
    computed = (name for node in graph.node for name in node.output)
    if PROBABILITIES in {*computed, *(tensor.name for tensor in graph.initializer)}:
        raise ArtifactError(
            f"the network of {bundle.path} has a tensor called {PROBABILITIES}, as the output is to be called here.",
            fix="rename the parameter or buffer of that name in your network, and train and export it again; or serve "
            "the bundle as it is: floats-edge pack triton",
        )
