"""``verification.json``: what was found when an exported bundle was put to the proof on one backend."""

from typing import Literal

from pydantic import Field

from floats_edge.artifacts.manifest import Parity
from floats_edge.artifacts.records import LambdaResult, Share, Subject
from floats_edge.recipe import Attack, Lambda, Section


class LambdaProof(Section):
    """The artefact at one lambda, beside its float twin."""

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
    files: int = Field(description="files whose sha256 is that of the manifest")
    golden_lambdas: tuple[Lambda, ...] = Field(description="lambdas at which the golden outputs were reproduced")
    parity: tuple[Parity, ...]
    attack: Attack = Field(description="replayed on the engine; its gradients come from the float twin")
    queries: int = Field(description="of the Square attack, per image")
    proofs: tuple[LambdaProof, ...]
    mismatch: str | None = Field(description="what gates had against the export of the bundle")
    problems: tuple[str, ...] = Field(description="gates that were not passed; none: the bundle is what was evaluated")
