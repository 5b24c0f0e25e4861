"""Kernels that TensorRT-RTX compiles on the host while an engine is loaded and run, kept for the next time.

TensorRT-RTX checks by itself that they fit the GPU, the driver and its own version. Never run on a GPU so far.
"""

import logging
from typing import Any

from floats_edge.artifacts.cache import cache_file, read_cache, write_cache

log = logging.getLogger("floats_edge.runtime")


class CompiledKernels:
    """The runtime cache of one engine.

    Args:
        engine: deserialised by TensorRT-RTX.
        version: of TensorRT-RTX.
        sha256: of its plan.
    """

    def __init__(self, engine: Any, version: str, sha256: str) -> None:
        self._file = cache_file("kernels", "tensorrt_rtx", version, sha256[:16])
        self._known = read_cache(self._file) or b""
        config = engine.create_runtime_config()
        self._cache = config.create_runtime_cache()
        if self._known and not self._cache.deserialize(self._known):
            log.info("the kernels in %s were compiled for another GPU or driver and are compiled again", self._file)
        config.set_runtime_cache(self._cache)
        self.context = engine.create_execution_context(config)
        """An execution context that uses and fills the cache; None if TensorRT-RTX cannot make one."""

    def keep(self) -> None:
        """Write what was compiled since, for the next time."""
        kernels = self._cache.serialize()
        if kernels is not None and bytes(kernels) != self._known:
            write_cache(self._file, bytes(kernels))
