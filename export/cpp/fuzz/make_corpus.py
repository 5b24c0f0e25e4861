#!/usr/bin/env python3
"""Make the inputs that fuzzing starts from: manifests of real bundles, and the weights of fuzz_bundle's network.

usage: make_corpus.py BUNDLES CORPUS, with BUNDLES made by tests/make_bundles.py
"""

import sys
from pathlib import Path

import numpy as np

from floats_edge.artifacts.files import pack_tensors


def main(bundles: Path, corpus: Path) -> None:
    """Fill ``corpus``."""
    corpus.mkdir(parents=True, exist_ok=True)
    for manifest in bundles.glob("*/manifest.json"):
        (corpus / f"{manifest.parent.name}.json").write_bytes(manifest.read_bytes())
    mask = np.arange(36) < 10
    tensors = {"a.mask": np.packbits(mask, bitorder="little"), "a.theta": np.ones(10, np.float32)}
    tensors["b.theta"] = np.ones((3, 4), np.float32)
    for name, channels in (("a", 4), ("b", 3)):
        tensors[f"{name}.noise_scale"] = np.ones(1, np.float32)
        for vector in ("gain_clean", "gain_adv", "bias_clean", "bias_adv"):
            tensors[f"{name}.{vector}"] = np.ones(channels, np.float32)
    (corpus / "weights.safetensors").write_bytes(pack_tensors(tensors))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
