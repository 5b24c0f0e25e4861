"""A graph that gives probabilities: for programs that know no logits."""

import onnx

from floats_edge.artifacts.bundle import EXPORT_AGAIN, Bundle
from floats_edge.errors import ArtifactError
from floats_edge.runtime.graph_check import read_graph

PROBABILITIES = "probabilities"


def with_probabilities(bundle: Bundle, file: str) -> bytes:
    """A graph of ``bundle`` whose output is the softmax of its logits ``[N, classes]``.

    Raises:
        ArtifactError: the file is not what was exported, or no such graph.
    """
    model, logits = read_graph(bundle, file), bundle.manifest.output.name
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
