"""``verification.json``: what was found when an exported bundle was put to the proof on one backend."""

from typing import Literal

from pydantic import Field

from floats_edge.artifacts.accuracy import LambdaResult, Share
from floats_edge.artifacts.manifest import Parity, Verdict, Withstood
from floats_edge.artifacts.records import Subject
from floats_edge.recipe import Attack, Lambda, Section


class LambdaProof(Section):
    """The artefact at one lambda, beside its twin."""

    lam: Lambda
    engine: LambdaResult
    twin: LambdaResult
    square: Share = Field(description="images that withstand the Square attack on the engine itself")


class Verification(Section):
    """The figures, and what is wrong with them."""

    kind: Literal["verification"] = "verification"
    schema_version: Literal[1] = 1
    subject: Subject
    backend: str
    library: str = Field(description="what computed, and its version")
    images: int = Field(description="test images that were attacked")
    files: int = Field(description="files whose sha256 is that of the manifest")
    golden_lambdas: tuple[Lambda, ...] = Field(description="lambdas at which the golden outputs were reproduced")
    parity: tuple[Parity, ...]
    attack: Attack = Field(description="replayed on the engine; its gradients come from the twin")
    queries: int = Field(description="of the Square attack, per image")
    proofs: tuple[LambdaProof, ...] = Field(description="empty, as parity, if the logits were no numbers")
    mismatch: str | None = Field(description="what gates had against the export of the bundle")
    problems: tuple[str, ...] = Field(description="gates that were not passed; none: the bundle is what was evaluated")

    def verdict(self, allow_mismatch: bool) -> Verdict:
        """What the bundle keeps of it. Logits that are no numbers are not let pass: there are no figures to judge."""
        return Verdict(
            backend=self.backend,
            library=self.library,
            images=self.images,
            attack=self.attack,
            queries=self.queries,
            results=tuple(
                Withstood(
                    lam=proof.lam,
                    clean=proof.engine.clean.count,
                    robust=proof.engine.robust.count,
                    square=proof.square.count,
                )
                for proof in self.proofs
            ),
            problems=self.problems,
            let_pass=allow_mismatch and bool(self.problems) and bool(self.proofs),
        )
