"""What training minimises: the cross entropy of every method, and the divergence of TRADES."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div

from floats_edge.images import Labels
from floats_edge.recipe import Train


@dataclass(frozen=True)
class CrossEntropy:
    """The loss that every method minimises.

    An attack sees neither weights nor smoothing. It seeks the worst change of each image by itself, by the sign of that
    image's gradient, which a positive factor does not alter; and what it leads away from is the true class. Targets of
    mixed images are probabilities; the weights then apply to each class's part of the loss.

    Attributes:
        weights: of an image by its class, float32 ``[classes]``, 1 in the mean over training images; None: all 1. The
            loss of a batch is divided by the number of its images, not by the sum of their weights, so that the means
            over workers and batches are those over images.
        smoothing: share of every target that all classes have alike. An image keeps its weight: torch would weigh each
            class of the smoothed target, and the rare ones of a skewed set then outweigh the true one.
    """

    weights: Tensor | None = None
    smoothing: float = 0.0

    def each(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of every image: ``[N]``."""
        sharp = cross_entropy(logits, labels, self.weights, reduction="none")
        if not self.smoothing:
            return sharp
        even = cross_entropy(logits, labels, reduction="none", label_smoothing=1.0)
        if self.weights is not None:
            even = even * (self.weights[labels] if labels.ndim == 1 else (labels * self.weights).sum(1))
        return (1 - self.smoothing) * sharp + self.smoothing * even

    def mean(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Over the images."""
        if self.smoothing:
            return self.each(logits, labels).mean()
        return cross_entropy(logits, labels, self.weights, reduction="sum") / len(labels)


def class_weights(labels: Labels, classes: int) -> Tensor:
    """Weights by class, inverse to how many of ``labels`` are of it; 1 in the mean over ``labels``.

    Every class that has images then adds the same to a sum over all of them; a class without any weighs nothing.
    """
    counts = np.bincount(labels, minlength=classes)
    weights = len(labels) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return torch.from_numpy(np.where(counts, weights, 0).astype(np.float32))


def make_loss(config: Train, labels: Labels, classes: int, device: torch.device) -> CrossEntropy:
    """The loss for training images with these ``labels``."""
    weights = class_weights(labels, classes).to(device) if config.balance == "weights" else None
    return CrossEntropy(weights, config.label_smoothing)


def divergence(clean: Tensor, attacked: Tensor) -> Tensor:
    """KL(p(clean) || p(attacked)) of logits ``[N, classes]``, mean over the images."""
    target = log_probabilities(clean)
    return kl_div(log_probabilities(attacked), target, log_target=True, reduction="batchmean")


def log_probabilities(logits: Tensor) -> Tensor:
    """In float32 at least: mixed precision on a CPU would leave them in bfloat16."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)
