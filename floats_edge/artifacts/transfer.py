"""Transfer of attacks: images that were attacked at one lambda, shown to the network at another."""

from typing import Annotated

from pydantic import Field, model_validator
from typing_extensions import Self

from floats_edge.artifacts.accuracy import Share
from floats_edge.artifacts.count import Count, Row
from floats_edge.recipe import Lambda, Section


class Transfer(Section):
    """Of some images, how many are right clean and attacked, by who attacks and by the lambda that is served.

    The attackers are one for each lambda, who believes that it is served, and one who knows the lambdas but not which
    is served: every gradient is that of the sum of their losses.
    """

    lambdas: Annotated[tuple[Lambda, ...], Field(min_length=2, max_length=64)]
    images: Annotated[Count, Field(gt=0)]
    clean: Row = Field(description="images that are right clean, by lambda served")
    by_lambda: Annotated[tuple[Row, ...], Field(max_length=64)] = Field(
        description="images that withstand, by lambda attacked, then by lambda served"
    )
    by_sum: Row = Field(description="that withstand the attacker who does not know the lambda, by lambda served")
    by_all: Row = Field(description="that withstand every attacker, by lambda served")

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        rows = (self.clean, *self.by_lambda, self.by_sum, self.by_all)
        if len(self.by_lambda) != len(self.lambdas) or any(len(row) != len(self.lambdas) for row in rows):
            raise ValueError("there is not one count for every lambda")
        for clean, *attacked, every in zip(*rows, strict=True):
            if not every <= min(attacked) <= max(attacked) <= clean <= self.images:
                raise ValueError("more images withstand an attack than are right without it, or all attacks than one")
        return self

    def share(self, count: int) -> Share:
        """``count`` of the images."""
        return Share(count=count, total=self.images)

    @property
    def drawn(self) -> tuple[float, float]:
        """Clean and robust accuracy, in percent, if every inference draws one of the lambdas, all alike likely.

        Robust against the attacker who knows them, but not which is drawn.
        """
        shown = self.images * len(self.lambdas)
        return 100 * sum(self.clean) / shown, 100 * sum(self.by_sum) / shown

    @property
    def masked(self) -> tuple[tuple[float | None, float], ...]:
        """Pairs ``(lambda attacked, lambda served)`` that fool more images than the attack at the lambda served does.

        By more than the 95 % interval of the latter. Where there are some, the gradients at the lambda served mislead
        the attack, and its robust accuracy is overstated (Athalye et al., ICML 2018). None: the sum was attacked.
        """
        found = []
        for place, served in enumerate(self.lambdas):
            least = self.share(self.by_lambda[place][place]).interval[0]
            attackers = (*zip(self.lambdas, self.by_lambda, strict=True), (None, self.by_sum))
            found += [(lam, served) for lam, row in attackers if self.share(row[place]).percent < least]
        return tuple(found)
