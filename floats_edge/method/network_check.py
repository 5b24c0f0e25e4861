"""Whether a module is a network that the method can work on: images in, logits out, and sound parameters."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from floats_edge.errors import NetworkError
from floats_edge.method.plan import inference


def check_network(network: nn.Module, example: Tensor, classes: int | None = None) -> None:
    """Run ``network`` on images, in inference and in training mode, and look at what it gives; nothing is changed.

    Args:
        network: any.
        example: images ``[N, C, H, W]`` that it takes, float32.
        classes: how many logits an image must have; None: at least two.

    Raises:
        NetworkError: its parameters are not sound, it does not run on such images, or gives no logits ``[N, classes]``.
    """
    check_parameters(network)
    if example.ndim != 4 or example.dtype != torch.float32 or not len(example):
        raise NetworkError(
            f"the example is {example.dtype} {list(example.shape)}, no images.",
            fix="give images [N, C, H, W], float32 in [0, 1]",
        )
    with inference(network):
        _check_logits(_output(network, example), example, classes)
    with _training(network):
        twice = torch.cat((example, example))  # BatchNorm cannot train on one image
        _check_logits(_output(network, twice), twice, classes)


def check_parameters(network: nn.Module) -> None:
    """Look at the parameters and running statistics of ``network``.

    Raises:
        NetworkError: it has none, or some that are not float32, not finite, or not there yet.
    """
    parameters = dict(network.named_parameters())
    if not parameters:
        raise NetworkError("the network has no parameters.", fix="give one that can be trained")
    lazy = [name for name, tensor in parameters.items() if isinstance(tensor, UninitializedParameter)]
    if lazy:
        raise NetworkError(
            f"{lazy[0]} has no shape yet, as its layer is a lazy one.", fix="run the network once on an image before"
        )
    running = {name: tensor for name, tensor in network.named_buffers() if name.split(".")[-1].startswith("running_")}
    for name, tensor in (*parameters.items(), *running.items()):
        if tensor.dtype != torch.float32:
            raise NetworkError(f"{name} is {tensor.dtype}, not float32.", fix="call network.float() first")
        if not tensor.is_meta and not bool(tensor.isfinite().all()):
            raise NetworkError(
                f"{name} holds numbers that are not finite.", fix="give a network, or pretrained weights, without NaN"
            )


def _output(network: nn.Module, images: Tensor) -> object:
    try:
        return network(images)
    except Exception as error:
        mode = "training" if network.training else "inference"
        raise NetworkError(
            f"the network does not run on images of shape {list(images.shape)} in {mode} mode: "
            f"{type(error).__name__}: {error}",
            fix="give images of the size that the network takes: data.preprocessing.size in a recipe",
        ) from error


def _check_logits(output: object, images: Tensor, classes: int | None) -> None:
    wanted = f"[{len(images)}, {'classes' if classes is None else classes}]"
    fix = f"let forward(images) return one tensor of logits, {wanted} for {len(images)} images, in training, too"
    if not isinstance(output, Tensor):
        kind = f"{type(output).__name__}"
        kind += f" of {len(output)} values" if isinstance(output, tuple | list | dict) else ""
        raise NetworkError(f"the network gives a {kind}, not one tensor of logits.", fix=fix)
    shape = list(output.shape)
    if output.ndim != 2 or shape[0] != len(images) or shape[1] < 2 or classes not in (None, shape[1]):
        raise NetworkError(f"the network gives a tensor {shape}, not logits {wanted}.", fix=fix)
    if not output.is_floating_point() or not bool(output.isfinite().all()):
        raise NetworkError("the logits of the network are not all finite numbers.", fix="give one whose logits are")


@contextmanager
def _training(network: nn.Module) -> Iterator[None]:
    """Training mode without gradients, afterwards as before: buffers, random numbers and modes."""
    buffers = [
        (module, name, tensor, tensor.clone())
        for module in network.modules()
        for name, tensor in module._buffers.items()
        if tensor is not None
    ]
    try:
        with inference(network):
            network.train()
            yield
    finally:
        with torch.no_grad():
            for module, name, tensor, before in buffers:
                tensor.copy_(before)
                module._buffers[name] = tensor
