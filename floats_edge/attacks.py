"""L-infinity attacks on any differentiable function of images; the same code trains and evaluates.

Images are ``[N, C, H, W]`` in [0, 1]; labels are int64 ``[N]`` or, where training mixes images, probabilities
``[N, classes]``; a network maps images to logits ``[N, classes]``. Only the gradient with respect to the images is
taken: give a network whose parameters need none.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Network = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
"""What an attack climbs: of logits ``[N, classes]`` and labels, one number of all images."""

GRADIENT_SCALE = 1024.0
"""Attacks take the sign of a gradient only; a power of two changes no bit of it in float32, and spares small ones from
vanishing in float16 (training with train.amp=fp16)."""


def attack(
    network: Network,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    positions: range | None = None,
    *,
    kind: str,
    epsilon: float,
    step: float | None = None,
    steps: int = 1,
    restarts: int = 1,
    loss: str = "cross-entropy",
    draws: int = 1,
    deviation: float | None = None,
) -> Tensor:
    """Adversarial images by the attack named ``kind``: ``pgd``, ``fgsm-rs`` or ``n-fgsm``.

    Args:
        network: the network under attack.
        images: clean images.
        labels: their true classes, or probabilities of these.
        generator: source of every random start, on the images' device.
        positions: where the images stand in a larger batch, up to ``positions.stop``, for all of which random starts
            are drawn; None: they are the whole batch.
        kind: name of the attack.
        epsilon: largest change of a pixel.
        step: step size; None takes epsilon/4 (pgd), 1.25 epsilon (fgsm-rs), epsilon (n-fgsm).
        steps: gradient steps of pgd.
        restarts: random starts of pgd, of which one that fools the network counts: it then names another class than
            the true one, or the likeliest.
        loss: what pgd climbs, ``cross-entropy`` or ``margin``: by how much another class leads the true one, which
            still has a gradient where the network is so sure that cross entropy has none (Carlini & Wagner, IEEE S&P
            2017).
        draws: calls of a network that draws noise at every call, over which each gradient of pgd is averaged.
        deviation: standard deviation of the normal noise that pgd starts with; None: it starts anywhere in the ball.
    """
    if kind == "pgd":
        return pgd(
            network,
            images,
            labels,
            generator,
            epsilon,
            step or epsilon / 4,
            steps,
            restarts,
            _LOSSES[loss],
            draws=draws,
            positions=positions,
            deviation=deviation,
        )
    if kind == "fgsm-rs":
        return pgd(network, images, labels, generator, epsilon, step or 1.25 * epsilon, positions=positions)
    if kind == "n-fgsm":
        return n_fgsm(network, images, labels, generator, epsilon, step or epsilon, positions)
    raise ValueError(f"unknown attack {kind!r}")


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return cross_entropy(logits, labels, reduction="sum")


def pgd(
    network: Network,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    epsilon: float,
    step: float,
    steps: int = 1,
    restarts: int = 1,
    loss: Loss = _cross_entropy,
    draws: int = 1,
    positions: range | None = None,
    deviation: float | None = None,
) -> Tensor:
    """PGD from a random start (Madry et al., ICLR 2018); with one step it is FGSM-RS (Wong et al., ICLR 2020).

    With several draws it is an attack by expectation over transformation (EOT; Athalye et al., ICML 2018).
    """
    low, high = (images - epsilon).clamp_min(0), (images + epsilon).clamp_max(1)
    classes = labels if labels.ndim == 1 else labels.argmax(1)
    result = images
    for restart in range(restarts):
        if deviation is None:
            noise = _uniform(images, epsilon, generator, positions)
        else:
            noise = _drawn(images, positions, lambda batch: batch.normal_(0, deviation, generator=generator))
        adversarial = (images + noise).clamp(0, 1)
        for _ in range(steps):
            gradient = _gradient(network, adversarial, labels, loss)
            for _ in range(draws - 1):
                gradient = gradient + _gradient(network, adversarial, labels, loss)
            adversarial = adversarial + step * gradient.sign()
            adversarial = torch.minimum(torch.maximum(adversarial, low), high)
        if restart == 0:
            result = adversarial
        else:
            with torch.no_grad():
                fooled = network(adversarial).argmax(1) != classes
            result = torch.where(fooled.view(-1, 1, 1, 1), adversarial, result)
    return result


def n_fgsm(
    network: Network,
    images: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    epsilon: float,
    step: float,
    positions: range | None = None,
) -> Tensor:
    """N-FGSM (de Jorge et al., NeurIPS 2022): noise U(-2 epsilon, 2 epsilon), one step, no projection on the ball."""
    noisy = images + _uniform(images, 2 * epsilon, generator, positions)
    return (noisy + step * _gradient(network, noisy, labels, _cross_entropy).sign()).clamp(0, 1)


def _uniform(images: Tensor, bound: float, generator: torch.Generator, positions: range | None) -> Tensor:
    return _drawn(images, positions, lambda batch: batch.uniform_(-bound, bound, generator=generator))


def _drawn(images: Tensor, positions: range | None, fill: Callable[[Tensor], Tensor]) -> Tensor:
    """Noise of the images' shape, the same at each position of a batch however few of its images are at hand."""
    if positions is None:
        return fill(torch.empty_like(images))
    batch = images.new_empty_strided((positions.stop, *images.shape[1:]), images.stride())
    return fill(batch)[positions.start :: positions.step]


def _gradient(network: Network, images: Tensor, labels: Tensor, loss: Loss) -> Tensor:
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        climbed = GRADIENT_SCALE * loss(network(images), labels)
    return torch.autograd.grad(climbed, images)[0].nan_to_num(nan=0.0)  # float16 may overflow; the image then stays


def square(
    network: Network, images: Tensor, labels: Tensor, generator: torch.Generator, epsilon: float, queries: int
) -> Tensor:
    """Adversarial images by the Square attack (Andriushchenko et al., ECCV 2020), which sees logits and no gradient.

    A random search: vertical stripes to begin with, then squares of +-epsilon per channel, smaller and smaller, each
    kept where it brings the true class closer to being beaten. Everything is on the CPU.

    Args:
        network: the network under attack; nothing is differentiated.
        images: clean images.
        labels: their true classes.
        generator: source of every random choice.
        epsilon: largest change of a pixel.
        queries: how often the network is asked about each image that still withstands.
    """
    count, channels, height, width = images.shape
    best = (images + epsilon * _signs(count, channels, 1, width, generator=generator)).clamp(0, 1)
    margin = _margin(network(best), labels)
    rows, columns = torch.arange(height).view(1, 1, -1, 1), torch.arange(width).view(1, 1, 1, -1)
    for query in range(1, queries):
        left = (margin > 0).nonzero().squeeze(1)
        if not len(left):
            break
        side = max(1, round((_square_share(query / queries) * height * width) ** 0.5))
        top, start = (
            torch.randint(0, max(size - side, 0) + 1, (len(left), 1, 1, 1), generator=generator)
            for size in (height, width)
        )
        inside = (rows >= top) & (rows < top + side) & (columns >= start) & (columns < start + side)
        moved = (images[left] + epsilon * _signs(len(left), channels, 1, 1, generator=generator)).clamp(0, 1)
        candidate = torch.where(inside, moved, best[left])
        reached = _margin(network(candidate), labels[left])
        closer = reached < margin[left]
        best[left[closer]], margin[left[closer]] = candidate[closer], reached[closer]
    return best


def _square_share(progress: float) -> float:
    """Share of the pixels that a square covers: 0.8, halved at the paper's points of its 10,000 queries."""
    halvings = sum(progress * 10_000 > point for point in (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000))
    return 0.8 / 2**halvings


def _signs(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, shape, generator=generator) * 2.0 - 1.0


def _margin(logits: Tensor, labels: Tensor) -> Tensor:
    """By how much the true class leads the next: positive where the network still is right."""
    true = logits.gather(1, labels.view(-1, 1)).squeeze(1)
    others = logits.scatter(1, labels.view(-1, 1), -torch.inf)
    return true - others.amax(dim=1)


def _negative_margin(logits: Tensor, labels: Tensor) -> Tensor:
    return -_margin(logits, labels).sum()


_LOSSES: dict[str, Loss] = {"cross-entropy": _cross_entropy, "margin": _negative_margin}
