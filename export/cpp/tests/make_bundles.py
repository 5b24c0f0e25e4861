#!/usr/bin/env python3
"""Make the bundles that the tests of floats_rt run on, and what Python computes from them.

usage: make_bundles.py FOLDER

For every bundle there is a NAME.expected.safetensors beside it: ``images`` [N, C, H, W]; ``lambdas`` [K]; for each
lambda ``logits_K``, all float32; and in modes bound and refit ``weights_K``, the bytes of W and b of all layers as the
graph takes them, one after the other. Below ``hostile`` are the bundles of ``tests/fixtures/hostile``, below
``hostile-graphs`` graphs that must be refused, made of ``honest.onnx``. ``libonnxruntime.so`` is a link to the library
that Python used. ``frames.safetensors`` is of make_frames.py.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from make_frames import frames

from floats_edge.artifacts.bundle import Bundle, open_bundle
from floats_edge.artifacts.files import pack_tensors
from floats_edge.artifacts.manifest import WEIGHTS_APART
from floats_edge.cli.main import cli
from floats_edge.runtime.backends import open_predictor
from floats_edge.runtime.lambda_weights import input_weights

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "tests"))
from fixtures import hostile_graphs
from fixtures.hostile import cases as hostile_bundles

LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)
QUICK = ("-o", "train.epochs=1", "-o", "data.train_images=512", "-o", "evaluate.images=64")
SURE = ("-o", "train.epochs=8", "-o", "data.train_images=1024")
"""So that rounding to 16 bits does not change the first class of an image; later options win."""
RUNS = {
    "sparse": (*SURE, "-o", "sparsity.density=0.3", "-o", "condition.noise_seed=12345678901234567"),
    "dense": (*SURE, "-o", "sparsity.density=1", "-o", "condition.rule=paper"),
    "narrow": ("-o", "sparsity.pattern=channel", "-o", "sparsity.density=0.5"),
    "wide": ("-o", "model.name=wrn-16-8", "-o", "model.arguments.width=2"),
    "narrow-wide": (
        *("-o", "model.name=wrn-16-8", "-o", "model.arguments.width=2"),
        *("-o", "sparsity={pattern: channel, density: 0.5, multiple: 1}"),
    ),
}
BANK = tuple(argument for lam in LAMBDAS for argument in ("--lambda", f"{lam:g}"))
FP16 = ("--precision", "fp16")
# Training is short, and leaves logits so close that int8 may change the first class.
INT8 = ("--precision", "int8", "--calibration", "minmax", "--allow-mismatch")
KEPT = ("--keep", "stem", "--keep", "blocks.1.conv1", "--keep-precision", "fp16")
INPUT, REFIT = (("--lambda", "runtime", "--switch", switch) for switch in ("input", "refit"))
FIXED = ("--lambda", "0.3")
BUNDLES = {  # name: what it is exported from, how
    "bound": ("runs/sparse",),
    "bound-paper": ("runs/dense",),
    "fixed": ("bound", *FIXED),
    "bank": ("bound", *BANK),
    "input": ("bound", *INPUT),
    "refit": ("bound", *REFIT),
    "bound-fp16": ("bound", *FP16),
    "fixed-fp16": ("bound", *FP16, *FIXED),
    "bank-fp16": ("bound-paper", *FP16, *BANK),
    "input-fp16": ("bound-paper", *FP16, *INPUT),
    "refit-fp16": ("bound-paper", *FP16, *REFIT),
    "bound-int8": ("bound", *INT8),
    "fixed-int8": ("bound", *INT8, *FIXED),
    "bank-int8": ("bound", *INT8, *BANK),
    "input-int8": ("bound-paper", *INT8, *INPUT),
    "bound-int8-kept-fp16": ("bound", *INT8, *KEPT),
    "input-int8-kept-fp16": ("bound", *INT8, *KEPT, *INPUT),
    "bound-bf16": ("bound-paper", "--precision", "bf16"),
    "bound-narrow": ("runs/narrow",),
    "bound-wide": ("runs/wide",),
    "bound-narrow-wide": ("runs/narrow-wide",),
}


def main(folder: Path) -> None:
    """Fill ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, options in RUNS.items():
        _floats_edge("train", "quickstart", *QUICK, *options, "--out", folder / "runs" / name)
    for name, (source, *options) in BUNDLES.items():
        _floats_edge("export", folder / source, "-o", folder / name, *options)
        (folder / f"{name}.expected.safetensors").write_bytes(pack_tensors(_expected(open_bundle(folder / name))))
    (folder / "frames.safetensors").write_bytes(pack_tensors(frames()))
    hostile_bundles.write_all(folder / "hostile")
    hostile_graphs.write_all(folder / "hostile-graphs")
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    link = folder / "libonnxruntime.so"
    link.unlink(missing_ok=True)
    link.symlink_to(library)


def _expected(bundle: Bundle) -> dict[str, np.ndarray]:
    lam = bundle.manifest.lam
    lambdas = lam.values or LAMBDAS
    images = np.random.default_rng(0).random((5, *bundle.manifest.input.shape), dtype=np.float32)
    tensors: dict[str, np.ndarray] = {"images": images, "lambdas": np.array(lambdas, np.float32)}
    with open_predictor(bundle, "ort-cpu", lambdas[0]) as predictor:
        for index, value in enumerate(lambdas):
            predictor.set_lambda(value)
            tensors[f"logits_{index}"] = predictor.predict(images)
    if lam.mode in WEIGHTS_APART:
        weights = input_weights(bundle)
        for index, value in enumerate(lambdas):
            arrays = weights.at(value).values()
            tensors[f"weights_{index}"] = np.concatenate([array.ravel().view(np.uint8) for array in arrays])
    return tensors


def _floats_edge(*arguments: object) -> None:
    cli([str(argument) for argument in arguments], prog_name="floats-edge", standalone_mode=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
