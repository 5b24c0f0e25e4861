"""A training run on disk: tensors in safetensors, everything else in ``checkpoint.json``, the commit point.

Every epoch writes tensor files of new names, then replaces ``checkpoint.json`` (which names them with their hashes),
then removes the old ones: at any moment the folder holds one whole checkpoint.
"""

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from numpy.typing import NDArray
from pydantic import Field, model_validator
from typing_extensions import Self

from floats_edge import __version__
from floats_edge.artifacts.files import (
    FileEntry,
    FileName,
    FileSet,
    Tensors,
    file_entry,
    pack_tensors,
    read_json,
    write_atomic,
    writing,
)
from floats_edge.data_report import DataReport
from floats_edge.errors import ArtifactError
from floats_edge.networks.spec import ImageSpec
from floats_edge.recipe import Recipe, Section
from floats_edge.recipe_file import dump_recipe

CHECKPOINT = "checkpoint.json"
_REMEDY = "train it again: floats-edge train RECIPE --out DIR"


class Epoch(Section):
    """What one epoch of training measured; accuracies in percent, on validation images, robust ones under PGD."""

    epoch: int
    loss: float
    clean_loss: float | None = Field(description="None: no clean images were trained on")
    robust_loss: float | None = Field(
        description="None: no attacked images were trained on; of TRADES, the divergence from clean images"
    )
    clean_accuracy: float
    robust_accuracy: float
    single_step_accuracy: float | None = Field(
        default=None,
        description="under the attack of training, away from the true class; None: it is no single-step attack",
    )
    overfitted: bool = Field(default=False, description="catastrophically: see training/check.py")
    density: float
    swapped: int
    learning_rate: float
    alpha: dict[str, float]
    images_per_s: float
    seconds: float
    remarks: tuple[str, ...] = Field(default=(), description="what the user should know")


class Checkpoint(Section):
    """``checkpoint.json``."""

    schema_version: Literal[2] = 2
    floats_edge_version: str = __version__
    recipe: Recipe
    images: ImageSpec
    labels: tuple[str, ...]
    history: tuple[Epoch, ...] = Field(min_length=1)
    data: DataReport | None = Field(default=None, description="None: the images did not lie in a folder")
    weights: FileName
    state: FileName
    files: dict[FileName, FileEntry]

    @model_validator(mode="after")
    def _files_are_listed(self) -> Self:
        missing = [name for name in (self.weights, self.state) if name not in self.files]
        if missing:
            raise ValueError(f"{', '.join(missing)} is used but not listed under files")
        return self


@dataclass(frozen=True)
class TrainingRun:
    """An opened run folder: its ``checkpoint.json`` is valid, its files are there and of the stated size."""

    path: Path
    checkpoint: Checkpoint = field(repr=False)

    @property
    def files(self) -> FileSet:
        """The tensor files of the run; reading one checks its hash."""
        return FileSet(self.path, self.checkpoint.files, _REMEDY)

    @property
    def weights_sha256(self) -> str:
        """Identity of the trained weights."""
        return self.checkpoint.files[self.checkpoint.weights].sha256

    def weights(self) -> Tensors:
        """The network's parameters and buffers by name."""
        return self.files.tensors(self.checkpoint.weights)

    def state(self) -> Tensors:
        """What resuming needs besides: momentum and mean gradients."""
        return self.files.tensors(self.checkpoint.state)


def is_run(path: Path) -> bool:
    """Whether ``path`` is meant to be a run folder (it need not be a valid one)."""
    return (path / CHECKPOINT).exists()


def open_run(path: Path) -> TrainingRun:
    """Read and check the checkpoint of a run folder.

    Raises:
        ArtifactError: not a run, an invalid ``checkpoint.json``, or a missing or resized tensor file.
    """
    if path.name == CHECKPOINT:
        path = path.parent
    if not is_run(path):
        raise ArtifactError(
            f"{path} holds no {CHECKPOINT}: it is no run." if path.exists() else f"there is no {path}.",
            fix="name a folder that floats-edge train wrote",
        )
    run = TrainingRun(path, read_json(path / CHECKPOINT, Checkpoint, _REMEDY))
    run.files.check()
    return run


def save_run(
    path: Path,
    recipe: Recipe,
    images: ImageSpec,
    labels: tuple[str, ...],
    history: tuple[Epoch, ...],
    weights: Mapping[str, NDArray[Any]],
    state: Mapping[str, NDArray[Any]],
    data: DataReport | None = None,
) -> TrainingRun:
    """Write the checkpoint of one epoch, with the metrics so far as JSON lines and CSV.

    Raises:
        OutputError: the file system refuses; the previous checkpoint is untouched.
    """
    epoch = len(history)
    blobs = {
        f"weights-{epoch:04d}.safetensors": pack_tensors(weights),
        f"state-{epoch:04d}.safetensors": pack_tensors(state),
    }
    names = tuple(blobs)
    checkpoint = Checkpoint(
        recipe=recipe,
        images=images,
        labels=labels,
        history=history,
        data=data,
        weights=names[0],
        state=names[1],
        files={name: file_entry(blob) for name, blob in blobs.items()},
    )
    for name, blob in blobs.items():
        write_atomic(path / name, blob)
    write_atomic(path / "recipe.yaml", dump_recipe(recipe).encode())
    write_atomic(path / "metrics.jsonl", "".join(f"{epoch.model_dump_json()}\n" for epoch in history).encode())
    write_atomic(path / "metrics.csv", _csv(history).encode())
    write_atomic(path / CHECKPOINT, (checkpoint.model_dump_json(indent=2) + "\n").encode())
    for pattern in ("weights-[0-9]*.safetensors", "state-[0-9]*.safetensors"):
        for stale in path.glob(pattern):
            if stale.name not in names:
                with writing(stale):
                    stale.unlink()
    return TrainingRun(path, checkpoint)


def _csv(history: tuple[Epoch, ...]) -> str:
    """One row per epoch, the alphas in columns of their own."""
    rows = [
        {**row.model_dump(exclude={"alpha", "remarks"}), **{f"alpha/{k}": v for k, v in row.alpha.items()}}
        for row in history
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
