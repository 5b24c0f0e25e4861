"""Golden outputs: what an engine must give for a few real images, to the tolerance that its bundle states."""

import numpy as np

from floats_edge.artifacts.bundle import Bundle
from floats_edge.errors import ParityError
from floats_edge.runtime.base import Predictor


def check_golden(engine: Predictor, bundle: Bundle) -> None:
    """Let an engine pass that gives the golden logits of its bundle at each of the golden lambdas.

    Raises:
        ParityError: naming the first lambda at which it does not.
    """
    golden = bundle.manifest.golden
    tensors = bundle.tensors(golden.file)
    for index, lam in enumerate(golden.lambdas):
        engine.set_lambda(lam)
        wanted = tensors[f"logits_{index}"].astype(np.float32)
        error = np.abs(engine.predict(tensors["images"].astype(np.float32)) - wanted).max() / np.ptp(wanted)
        if not error <= golden.tolerance:
            raise ParityError(
                f"{engine.backend} at lambda {lam:g} differs from the golden logits by {error:.1e} of their range; "
                f"{golden.tolerance:.0e} is allowed.",
                fix=f"rebuild the engine here: floats-edge export {bundle.path} -o {bundle.path} --trt",
            )
