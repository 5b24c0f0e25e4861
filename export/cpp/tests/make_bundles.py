#!/usr/bin/env python3
"""Make the bundles that the tests of floats_rt run on, and what Python computes from them.

usage: make_bundles.py FOLDER

For every bundle there is a NAME.expected.safetensors beside it: ``images`` [N, C, H, W]; ``lambdas`` [K]; for each
lambda ``logits_K``; and in mode bound ``weights_K``, W and b of all layers one after the other. Everything is float32.
``libonnxruntime.so`` is a link to the library that Python used.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime

from floats_edge.artifacts.bundle import Bundle, open_bundle
from floats_edge.artifacts.files import pack_tensors
from floats_edge.cli.main import cli
from floats_edge.runtime.backends import open_predictor
from floats_edge.runtime.lambda_weights import bundle_weights

LAMBDAS = (0.0, 0.25, 0.5, 0.75, 1.0)
QUICK = ("-o", "train.epochs=1", "-o", "data.train_images=512", "-o", "evaluate.images=64")
RUNS = {
    "sparse": ("-o", "sparsity.density=0.3", "-o", "condition.noise_seed=12345678901234567"),
    "dense": ("-o", "sparsity.density=1", "-o", "condition.rule=paper"),
}
BANK = tuple(argument for lam in LAMBDAS for argument in ("--lambda", f"{lam:g}"))
BUNDLES = {  # name: what it is exported from, how
    "bound": ("runs/sparse",),
    "bound-paper": ("runs/dense",),
    "fixed": ("bound", "--lambda", "0.3"),
    "bank": ("bound", *BANK),
    "bound-fp16": ("bound", "--precision", "fp16"),
    "fixed-fp16": ("bound", "--precision", "fp16", "--lambda", "0.3"),
    "bank-fp16": ("bound-paper", "--precision", "fp16", *BANK),
}


def main(folder: Path) -> None:
    """Fill ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, options in RUNS.items():
        _floats_edge("train", "quickstart", *QUICK, *options, "--out", folder / "runs" / name)
    for name, (source, *options) in BUNDLES.items():
        _floats_edge("export", folder / source, "-o", folder / name, *options)
        (folder / f"{name}.expected.safetensors").write_bytes(pack_tensors(_expected(open_bundle(folder / name))))
    (library,) = (Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*")
    link = folder / "libonnxruntime.so"
    link.unlink(missing_ok=True)
    link.symlink_to(library)


def _expected(bundle: Bundle) -> dict[str, np.ndarray]:
    lam = bundle.manifest.lam
    lambdas = lam.values or LAMBDAS
    images = np.random.default_rng(0).random((5, *bundle.manifest.input.shape), dtype=np.float32)
    tensors = {"images": images, "lambdas": np.array(lambdas, np.float32)}
    with open_predictor(bundle, "ort-cpu", lambdas[0]) as predictor:
        for index, value in enumerate(lambdas):
            predictor.set_lambda(value)
            tensors[f"logits_{index}"] = predictor.predict(images)
    if lam.mode == "bound":
        weights = bundle_weights(bundle)
        for index, value in enumerate(lambdas):
            tensors[f"weights_{index}"] = np.concatenate([array.ravel() for array in weights.at(value).values()])
    return tensors


def _floats_edge(*arguments: object) -> None:
    cli([str(argument) for argument in arguments], prog_name="floats-edge", standalone_mode=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
