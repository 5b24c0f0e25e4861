"""Two processes that train together on real digits, over gloo: what one process does, and what when one is lost."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from fixtures.training import OAT, StopAfterAnEpoch
from fixtures.two_workers import METHODS, few_digits, normalized, train_epochs

from floats_edge.artifacts.checkpoint import open_run
from floats_edge.attacks import attack
from floats_edge.data import Splits, load_data
from floats_edge.errors import BackendError, RecipeError
from floats_edge.recipe import Recipe
from floats_edge.recipe_file import dump_recipe, load_recipe, override_recipe
from floats_edge.training import distributed
from floats_edge.training.distributed import ALONE, Workers, join
from floats_edge.training.loop import Observer, Trainer, train
from floats_edge.training.statistics import image_spec

REPOSITORY = Path(__file__).resolve().parents[3]
TIMES = {"seconds", "images_per_s"}
WORDS = {"alpha", "remarks"}


def torchrun(*words: str | Path) -> subprocess.Popen[str]:
    """Two processes on this machine, which meet at a port that is free."""
    program = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    command = (*program, *map(str, words))
    path = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture(scope="module")
def together(digits_recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the two workers of fixtures/two_workers.py wrote."""
    out = tmp_path_factory.mktemp("together")
    (out / "recipe.yaml").write_text(dump_recipe(override_recipe(digits_recipe, ("train.epochs=3",))))
    process = torchrun(REPOSITORY / "tests" / "fixtures" / "two_workers.py", out)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out


def metrics(epoch: dict) -> dict[str, float]:
    """Of an epoch, alphas included but not what takes time; NaN where its method has none."""
    values = {**epoch, **epoch["alpha"]}
    return {name: math.nan if values[name] is None else values[name] for name in values.keys() - TIMES - WORDS}


@pytest.mark.parametrize("method", METHODS)
def test_two_workers_take_the_steps_of_one(method: str, together: Path) -> None:
    """Metrics and weights, over mask updates, augmentation, random starts and resampled noise."""
    recipe = load_recipe(together / "recipe.yaml")
    epochs, weights = train_epochs(override_recipe(recipe, METHODS[method]), few_digits(recipe), ALONE)
    theirs = json.loads((together / f"{method}-0.json").read_text())
    for mine, other in zip(epochs, theirs, strict=True):
        assert metrics(other) == pytest.approx(metrics(mine), rel=1e-9, nan_ok=True)
    with np.load(together / f"{method}-0.npz") as first:
        assert first.keys() == weights.keys()
        for name, tensor in weights.items():
            np.testing.assert_allclose(first[name], tensor, rtol=1e-9, atol=1e-9, err_msg=name)


def test_one_worker_reads_all_images_to_know_what_they_have_in_common(together: Path) -> None:
    recipe = load_recipe(together / "recipe.yaml")
    first, second = (json.loads((together / f"normalization-{rank}.json").read_text()) for rank in range(2))
    assert (sum(first.pop("read")), second.pop("read")) == (1 + 96, [1]), "one image tells their shape"
    spec = image_spec(recipe, few_digits(recipe))
    assert first == second == {"mean": list(spec.mean), "std": list(spec.std)}


@pytest.mark.parametrize("method", METHODS)
def test_workers_have_the_same_bits(method: str, together: Path) -> None:
    with np.load(together / f"{method}-0.npz") as first, np.load(together / f"{method}-1.npz") as second:
        assert first.keys() == second.keys()
        assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    epochs = [json.loads((together / f"{method}-{rank}.json").read_text()) for rank in (0, 1)]
    for one, other in zip(*epochs, strict=True):
        assert {key: one[key] for key in one.keys() - TIMES} == {key: other[key] for key in one.keys() - TIMES}


def test_batchnorm_is_that_of_all_images(together: Path) -> None:
    """Values, gradients and running statistics, from uneven shares of a batch whose mean is far from 0."""
    expected = normalized(ALONE)
    with np.load(together / "batchnorm-0.npz") as first, np.load(together / "batchnorm-1.npz") as second:
        for name, tensor in expected.items():
            found = np.concatenate((first[name], second[name])) if name in ("y", "x", "served") else second[name]
            np.testing.assert_allclose(found, tensor, rtol=1e-4, atol=1e-4, err_msg=name)


def test_resume_with_as_many_workers_is_bit_for_bit(together: Path) -> None:
    whole, stopped = open_run(together / "whole"), open_run(together / "stopped")
    for one, other in ((whole.weights(), stopped.weights()), (whole.state(), stopped.state())):
        assert one.keys() == other.keys()
        assert all(one[name].tobytes() == other[name].tobytes() for name in one)
    assert [epoch.model_dump(exclude=TIMES) for epoch in whole.checkpoint.history] == [
        epoch.model_dump(exclude=TIMES) for epoch in stopped.checkpoint.history
    ]


def test_masks_that_come_apart_are_noticed_by_every_worker(together: Path) -> None:
    for rank in (0, 1):
        assert "networks are not the same" in (together / f"complaint-{rank}.txt").read_text()


def test_a_lost_worker_ends_the_run_and_the_last_epoch_is_kept(silent: Observer, tmp_path: Path) -> None:
    """One of two is killed in mid-epoch; the other says what happened and what to do, and the run goes on alone."""
    options = (
        "train.epochs=500",
        "train.batch_size=16",
        "data.preprocessing.size=8",
        "model.arguments.width=4",
        "data.train_images=64",
    )
    folder = tmp_path / "run"
    words = [word for option in options for word in ("-o", option)]
    process = torchrun("-m", "floats_edge", "train", "quickstart", *words, "--out", folder, "--device", "cpu")
    while not (folder / "checkpoint.json").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    (victim,) = [worker for worker in psutil.Process(process.pid).children() if worker.environ().get("RANK") == "1"]
    victim.kill()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "Trained" not in output
    assert "Error: " in errors
    assert "start again with --resume" in errors
    assert "SIGKILL" in errors
    recipe = load_recipe("quickstart", options)
    kept = len(open_run(folder).checkpoint.history)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, load_data(recipe.data, recipe.seed), folder, StopAfterAnEpoch(), resume=True)
    assert len(open_run(folder).checkpoint.history) == kept + 1


def test_sigterm_ends_a_worker_that_waits_for_another(tmp_path: Path) -> None:
    """The other one never comes: gloo waits for it where no handler of a signal runs, as NCCL and CUDA do."""
    program = """
import sys, time
from floats_edge.training.distributed import join
with join("cpu") as workers:
    open(sys.argv[1] + str(workers.rank), "x").close()
    workers.wait() if workers.rank == 0 else time.sleep(60)
"""
    process = torchrun("--no-python", sys.executable, "-c", program, tmp_path / "joined-")
    while len(list(tmp_path.iterdir())) < 2:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    children = psutil.Process(process.pid).children()
    (waiting,) = [worker for worker in children if worker.environ().get("RANK") == "0"]
    time.sleep(0.5)
    waiting.terminate()
    start = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert time.monotonic() - start < 20
    assert "Error: torchrun stops this worker" in errors
    assert "exitcode  : 130" in errors


def test_after_a_run_sigterm_is_as_before() -> None:
    handler, descriptor = signal.getsignal(signal.SIGTERM), signal.set_wakeup_fd(-1)
    with distributed._ended_by_sigterm():
        assert signal.getsignal(signal.SIGTERM) is not handler
        with pytest.raises(BackendError, match="torchrun stops this worker"):
            os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is handler
    assert signal.set_wakeup_fd(descriptor) == -1


def test_what_ends_a_process_that_reads_images_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    ends, end = [], os._exit
    monkeypatch.setattr(distributed, "GRACE", distributed.timedelta(seconds=0))
    with distributed._ended_by_sigterm():
        child = os.fork()
        if child == 0:
            try:
                os.kill(os.getpid(), signal.SIGTERM)
            finally:
                end(0)
        monkeypatch.setattr(os, "_exit", ends.append)
        os.waitpid(child, 0)
        time.sleep(0.2)
        assert ends == []


class TestShares:
    @pytest.mark.parametrize("size", [1, 2, 3])
    def test_every_image_is_one_workers(self, size: int) -> None:
        for total, first in ((12, 0), (10, 5), (7, 4)):
            taken = [Workers(rank, size).positions(total, first) for rank in range(size)]
            assert sorted(position for positions in taken for position in positions) == list(range(total))
            batch = list(range(first + total))
            for rank, positions in enumerate(taken):
                mine = [image for image in batch[Workers(rank, size).share] if image >= first]
                assert mine == [first + position for position in positions]

    @pytest.mark.parametrize(("kind", "deviation"), [("pgd", None), ("pgd", 0.01), ("fgsm-rs", None), ("n-fgsm", None)])
    def test_random_starts_are_those_of_the_whole_batch(self, kind: str, deviation: float | None) -> None:
        images = torch.rand(6, 3, 4, 4).contiguous(memory_format=torch.channels_last)
        labels = torch.arange(6) % 2

        def network(batch: torch.Tensor) -> torch.Tensor:
            return batch.flatten(1)[:, :2]

        def attacked(positions: range | None) -> torch.Tensor:
            mine = slice(None) if positions is None else slice(positions.start, None, positions.step)
            batch = images[mine].contiguous(memory_format=torch.channels_last)
            generator = torch.Generator().manual_seed(3)
            options = {"kind": kind, "epsilon": 0.1, "deviation": deviation}
            return attack(network, batch, labels[mine], generator, positions, **options)

        whole = attacked(None)
        for rank in range(2):
            assert torch.equal(attacked(Workers(rank, 2).positions(6)), whole[rank::2])

    @pytest.mark.parametrize(
        ("size", "options", "message"),
        [
            (3, (), "3 workers cannot share half of a batch of 16 images equally"),
            (16, (), "16 workers cannot share half of"),
            (3, ("sparsity.density=1", "method=standard"), "3 workers cannot share a batch of 16"),
            (4, OAT, "less than one of lambda = 0 for each of 4 workers"),
        ],
    )
    def test_batches_that_cannot_be_shared(
        self, size: int, options: tuple[str, ...], message: str, digits_recipe: Recipe, digits: Splits
    ) -> None:
        recipe = override_recipe(digits_recipe, options)
        with pytest.raises(RecipeError, match=message) as caught:
            Trainer(recipe, digits, image_spec(recipe, digits), torch.device("cpu"), Workers(0, size))
        assert "train.batch_size" in caught.value.fix

    def test_oat_is_not_compiled_with_several_workers(self, digits_recipe: Recipe) -> None:
        recipe = override_recipe(digits_recipe, (*OAT, "train.compile=true"))
        ALONE.check_recipe(recipe)
        with pytest.raises(RecipeError, match=r"not for torch\.compile") as caught:
            Workers(0, 2).check_recipe(recipe)
        assert "train.compile=false" in caught.value.fix

    def test_batch_of_oat_with_an_image_of_lambda_0_for_each(self, digits_recipe: Recipe) -> None:
        Workers(0, 4).check_recipe(override_recipe(digits_recipe, (*OAT, "train.batch_size=24")))


class TestJoin:
    @pytest.mark.parametrize("size", [None, "1"])
    def test_alone_without_torchrun(self, size: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("WORLD_SIZE", raising=False)
        if size:
            monkeypatch.setenv("WORLD_SIZE", size)
        with join("cpu") as workers:
            assert workers == ALONE

    @pytest.mark.parametrize(
        ("variables", "message"),
        [
            ({"WORLD_SIZE": "2"}, "without RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT"),
            ({"WORLD_SIZE": "two", **dict.fromkeys(("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"), "0")}, "two"),
        ],
    )
    def test_world_size_without_torchrun(
        self, variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.as_worker(monkeypatch, **variables)
        with pytest.raises(BackendError, match=message) as caught, join("cpu"):
            pass
        assert "torchrun --nproc-per-node 2 -m floats_edge train" in caught.value.fix
        assert "unset WORLD_SIZE" in caught.value.fix

    def test_backend_that_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.as_worker(monkeypatch)
        monkeypatch.setattr(distributed.distributed, "is_backend_available", lambda name: False)
        for device, backend in (("cpu", "gloo"), ("cuda", "nccl")):
            with pytest.raises(BackendError, match=f"without {backend}"), join(device):
                pass

    def test_more_workers_than_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.as_worker(monkeypatch)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        with pytest.raises(BackendError, match="no GPU for worker 1 of this machine, which has 1"), join("cuda"):
            pass
        with pytest.raises(BackendError, match="cannot share cuda:0") as caught, join("cuda:0"):
            pass
        assert "--device cuda" in caught.value.fix

    def test_others_that_do_not_answer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.as_worker(monkeypatch)
        monkeypatch.setattr(distributed, "TIMEOUT", distributed.timedelta(seconds=1))
        with pytest.raises(BackendError, match="worker 1 of 2 could not join the others"), join("cpu"):
            pass

    def as_worker(self, monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
        """An environment as of the second of two workers, or of ``variables`` alone."""
        complete = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
        for name in complete:
            monkeypatch.delenv(name, raising=False)
        for name, value in (variables or complete).items():
            monkeypatch.setenv(name, value)
