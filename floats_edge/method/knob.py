"""The knob: one lambda that all conditioned layers of a network read, so that no forward has to pass it on."""

from collections.abc import Iterator
from contextlib import contextmanager

from floats_edge.method.fold import check_lambda
from floats_edge.method.plan import Plan


class Knob:
    """Lambda of one network, and the plan by which the network was conditioned.

    Attributes:
        lam: the lambda in force, 0 at first.
        plan: what became of each layer.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.lam = 0.0

    @contextmanager
    def at(self, lam: float) -> Iterator[None]:
        """Turn the knob to ``lam`` for a while: ``with knob.at(0.5): logits = network(images)``.

        Raises:
            ValueError: it is not a number in [0, 1].
        """
        before, self.lam = self.lam, check_lambda(lam)
        try:
            yield
        finally:
            self.lam = before
