"""Small bundles to pack."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.tiny_bundle import write_bundle

from floats_edge.artifacts.bundle import Bundle, open_bundle, write_manifest
from floats_edge.artifacts.manifest import Manifest, Mode, Precision, Verdict

LAMBDAS: dict[Mode, tuple[float, ...] | None] = {"fixed": (0.3,), "bank": (0.0, 0.5)}


@pytest.fixture
def tiny(tmp_path: Path) -> Callable[..., Bundle]:
    """``tiny(mode, precision="fp32", **changes)``: a bundle by hand, with changes of its manifest."""

    def made(mode: Mode, precision: Precision = "fp32", **changes: object) -> Bundle:
        bundle = write_bundle(tmp_path / "animals", LAMBDAS.get(mode), precision, mode)
        write_manifest(bundle.path, Manifest.model_validate({**bundle.manifest.model_dump(), **changes}))
        return open_bundle(bundle.path)

    return made


@pytest.fixture
def failed(tiny: Callable[..., Bundle]) -> Callable[..., Verdict]:
    """``failed(backend, let_pass)``: a verdict of verify that has something against the bundle."""

    def made(backend: str, let_pass: bool) -> Verdict:
        attack = tiny("fixed").manifest.recipe.attack
        return Verdict(
            backend=backend,
            library="a library 1.0",
            images=10,
            attack=attack,
            queries=1,
            results=(),
            problems=("the logits differ.",),
            let_pass=let_pass,
        )

    return made
