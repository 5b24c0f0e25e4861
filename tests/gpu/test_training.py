"""Training on a GPU: mixed precision, compilation, deterministic algorithms and workers over NCCL."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from floats_edge.artifacts.checkpoint import open_run
from floats_edge.recipe_file import override_recipe
from floats_edge.training.distributed import ALONE
from floats_edge.training.execution import torch_settings
from floats_edge.training.loop import Trainer, _Losses, train
from floats_edge.training.sparsity import CutChannels
from floats_edge.training.statistics import image_spec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device"),
]


@pytest.fixture(scope="module")
def few(digits):
    return replace(digits, train=digits.train.first(320), validation=digits.validation.first(100))


def losses(recipe, splits, folder, observer, *options):
    run = train(override_recipe(recipe, options), splits, folder, observer, "cuda")
    return [epoch.loss for epoch in run.checkpoint.history]


METHODS = {"float": (), "oat": ("method=oat", "sparsity.density=1", "evaluate.lambdas=[0,1]")}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("option", ["train.amp=bf16", "train.amp=fp16"])
def test_it_learns_as_float32_does(method, option, digits_recipe, few, silent, tmp_path):
    exact = losses(digits_recipe, few, tmp_path / "exact", silent, *METHODS[method])
    other = losses(digits_recipe, few, tmp_path / "other", silent, *METHODS[method], option)
    assert other == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("options", [(), ("train.amp=bf16",), ("train.amp=fp16",), ("condition.noise=resample",)])
def test_it_learns_by_graphs_as_without(options, digits_recipe, few, silent, tmp_path):
    plain = losses(digits_recipe, few, tmp_path / "plain", silent, *options)
    recorded = losses(digits_recipe, few, tmp_path / "recorded", silent, *options, "train.cuda_graphs=true")
    assert recorded == pytest.approx(plain, rel=0.1)


@pytest.mark.parametrize("option", ["train.amp=off", "train.amp=fp16", "train.cuda_graphs=true"])
def test_deterministic_runs_have_the_same_bits(option, digits_recipe, few, silent, tmp_path):
    recipe = override_recipe(digits_recipe, ("train.deterministic=true", option))
    one, other = (train(recipe, few, tmp_path / name, silent, "cuda").weights() for name in ("one", "other"))
    assert all(one[name].tobytes() == other[name].tobytes() for name in one)


CUT = ("condition.noise=resample", "sparsity.pattern=channel", "sparsity.density=0.5", "sparsity.multiple=2")


GRAPHS = ("train.cuda_graphs=true",)


@pytest.mark.parametrize("options", [("train.amp=off",), ("train.amp=bf16",), GRAPHS, ("data.mixup=0.2",), CUT])
def test_a_step_does_not_make_the_host_wait(options, digits_recipe, few):
    recipe = override_recipe(digits_recipe, ("sparsity.density=1", *options))
    place, losses = torch.device("cuda"), _Losses()
    with torch_settings(recipe.train, place):
        subject = Trainer(recipe, few, image_spec(recipe, few), place)
        if isinstance(subject.updater, CutChannels):
            subject.updater.after_step(subject.updater.last_dense_step, subject.optimizer)
        generator = torch.Generator("cuda").manual_seed(0)
        try:
            for step, batch in enumerate(subject.feed.batches(0)):
                losses.add(subject.update(*batch, generator), ALONE)
                if step == 1:  # what is made once is made
                    torch.cuda.set_sync_debug_mode("error")
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert all(loss > 0 for _, loss in losses.read())


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL gives each worker a GPU of its own; there are not two")
def test_two_workers_learn_as_one(tmp_path):
    options = ("train.epochs=2", "data.preprocessing.size=8", "model.arguments.width=8")
    words = (*(word for option in options for word in ("-o", option)), "--device", "cuda")
    alone = (sys.executable, "-m", "floats_edge", "train", "quickstart", *words, "--out", tmp_path / "alone")
    launcher = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "floats_edge")
    for command in (alone, (*launcher, *alone[3:-1], tmp_path / "together")):
        subprocess.run(list(map(str, command)), check=True, timeout=600, env=dict(os.environ))
    one, two = (open_run(tmp_path / name).checkpoint.history for name in ("alone", "together"))
    assert [epoch.loss for epoch in two] == pytest.approx([epoch.loss for epoch in one], rel=0.01)


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_compiled_as_without(method, digits_recipe, few, silent, tmp_path):
    """The last one: compiling takes longest."""
    exact = losses(digits_recipe, few, tmp_path / "exact", silent, *METHODS[method])
    compiled = losses(digits_recipe, few, tmp_path / "compiled", silent, *METHODS[method], "train.compile=true")
    assert compiled == pytest.approx(exact, rel=0.1)
