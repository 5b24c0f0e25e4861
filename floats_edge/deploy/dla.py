"""What a Jetson's deep learning accelerator runs of an engine: the GPU runs what it cannot, and the log alone says so.

Source of the log's lines: NVIDIA's sampleCudla and builds on Orin boards in public issues; messages of TensorRT 8 are
informative, of 10 verbose. NVIDIA's guide ruled Q/DQ on a DLA out for TensorRT 8 and has since documented none that
computes in int8 there (read up to 11.4.1).
"""

import logging
import re

from floats_edge.errors import BackendError

_RUN = re.compile(r"Layers running on DLA", re.IGNORECASE)
_LAYER = re.compile(r"\[DlaLayer\]")
_TELLS = re.compile(f"{_RUN.pattern}|{_LAYER.pattern}", re.IGNORECASE)
_REASON = re.compile(r"^WARNING (.*(?:Switching|falling back).*GPU.*)$", re.MULTILINE)


def log_dla_layers(log: logging.Logger) -> None:
    """Let a log also have those verbose messages of TensorRT that :func:`dla_layers` reads."""
    log.setLevel(logging.DEBUG)
    log.addFilter(lambda record: record.levelno > logging.DEBUG or bool(_TELLS.search(record.getMessage())))


def dla_layers(log: str) -> int | None:
    """How many layers of an engine the DLA runs, those fused into one counted as one; None if the log does not say.

    Raises:
        BackendError: none: the GPU would run them all.
    """
    *_, told = _RUN.split(log)
    if told == log:
        return None
    layers = len(_LAYER.findall(told))
    if layers == 0:
        reason = _REASON.search(log)
        raise BackendError(
            "TensorRT gives no layer to the DLA: the GPU would run them all."
            + (f" TensorRT said: {reason.group(1)}" if reason else ""),
            fix="export with --precision fp16 (NVIDIA documents no int8 by Q/DQ on a DLA), or leave --dla out",
        )
    return layers
