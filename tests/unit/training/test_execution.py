"""Mixed precision, compilation and deterministic algorithms, as far as a CPU has them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from bench.calls import Calls
from fixtures.training import trainer

from floats_edge import attacks
from floats_edge.attacks import n_fgsm
from floats_edge.data import Splits
from floats_edge.errors import BackendError
from floats_edge.recipe import Recipe, Train
from floats_edge.recipe_file import override_recipe
from floats_edge.training.execution import Precision, torch_settings
from floats_edge.training.loop import Observer, Trainer, train
from floats_edge.training.optimizer import set_learning_rate
from floats_edge.training.stage import Unwatched
from floats_edge.training.steps import FloatStep, Losses, Step


class Settings(Unwatched):
    """An observer that writes down how torch was set while training."""

    def __init__(self) -> None:
        self.deterministic: list[bool] = []

    def on_step(self, step: int, steps: int, loss: float, images_per_s: float) -> None:
        self.deterministic.append(torch.are_deterministic_algorithms_enabled())


def update(subject: Trainer) -> Losses:
    """One step on the first batch."""
    return subject.update(*next(subject.feed.batches(0)), torch.Generator().manual_seed(0))


def set_scale(subject: Trainer, scale: float) -> None:
    """Of float16's losses."""
    scaler = subject.precision.scaler
    scaler.load_state_dict({**scaler.state_dict(), "scale": scale})


class TestPrecision:
    def test_attack_and_update_are_computed_in_bfloat16_and_the_rest_is_not(
        self, digits_recipe: Recipe, few: Splits, silent: Observer
    ) -> None:
        subject = trainer(digits_recipe, few, "train.amp=bf16")
        seen: dict[str, set[torch.dtype]] = {"folded": set(), "rounded": set(), "trained": set()}
        step = subject.step
        assert isinstance(step, FloatStep)
        for name, network in (("folded", step.folded), ("rounded", step.rounded), ("trained", subject.network)):
            network.register_forward_hook(lambda module, args, logits, name=name: seen[name].add(logits.dtype))
        losses = update(subject)
        assert seen == {"folded": set(), "rounded": {torch.bfloat16}, "trained": {torch.bfloat16}}
        assert losses.total.dtype == torch.float32
        assert {tensor.dtype for tensor in subject.network.state_dict().values() if tensor.is_floating_point()} == {
            torch.float32
        }
        epoch = subject.run_epoch(0, silent)
        assert seen["folded"] == {torch.float32}, "checked as it is served"
        assert any("meant for GPUs" in remark for remark in epoch.remarks)
        exact = trainer(digits_recipe, few).run_epoch(0, silent)
        assert epoch.loss == pytest.approx(exact.loss, rel=0.05)
        assert epoch.loss != exact.loss
        assert not any("meant for GPUs" in remark for remark in exact.remarks)

    @pytest.mark.parametrize("amp", ["bf16", "fp16"])
    def test_weights_that_are_attacked_are_rounded_once_and_to_the_same(
        self, amp: str, digits_recipe: Recipe, few: Splits
    ) -> None:
        """As autocast rounds them whenever it is called, so that a gradient takes no more operations for them."""
        exact, subject = (trainer(digits_recipe, few, f"train.amp={kind}").step for kind in ("off", amp))
        images, labels = next(trainer(digits_recipe, few).feed.batches(0))

        def gradient(step: Step, amp: str) -> tuple[torch.Tensor, int]:
            with Precision(Train(amp=amp), images.device).autocast():
                network = step.at(1.0)
                with Calls() as calls:
                    found = attacks._gradient(network, images, labels, attacks._cross_entropy)
            return found, calls.count

        rounded, few_calls = gradient(subject, amp)
        wanted, many_calls = gradient(exact, amp)
        assert torch.equal(rounded, wanted)
        images_and_logits_both_ways = 4
        assert few_calls == gradient(exact, "off")[1] + images_and_logits_both_ways < many_calls

    def test_a_step_that_overflows_is_left_out(self, digits_recipe: Recipe, few: Splits) -> None:
        subject = trainer(digits_recipe, few, "train.amp=fp16")
        set_learning_rate(subject.optimizer, subject.recipe.train, 0.2)
        before = {name: parameter.detach().clone() for name, parameter in subject.network.named_parameters()}
        set_scale(subject, 2.0**40)
        update(subject)
        assert subject.precision.scaler.get_scale() == 2.0**39
        assert all(torch.equal(parameter, before[name]) for name, parameter in subject.network.named_parameters())
        assert all(gradient.isfinite().all() for gradient in subject.updater.gradient.values())
        set_scale(subject, 2.0**10)
        update(subject)
        assert not torch.equal(subject.network.get_parameter("stem.weight.theta"), before["stem.weight.theta"])
        assert all(gradient.any() for gradient in subject.updater.gradient.values())

    def test_state_of_the_scaler_is_saved(self, digits_recipe: Recipe, few: Splits) -> None:
        subject, other = (trainer(digits_recipe, few, "train.amp=fp16") for _ in range(2))
        set_scale(subject, 2.0**40)
        update(subject)
        other.restore(subject.weights(), subject.state())
        assert other.precision.scaler.get_scale() == 2.0**39
        assert other.state().keys() == subject.state().keys() != trainer(digits_recipe, few).state().keys()

    def test_small_gradients_survive_in_float16(self) -> None:
        """The logits' gradients times 2e-8 are below the smallest float16."""

        def network(images: torch.Tensor) -> torch.Tensor:
            return (images.half() * 2e-8).float().flatten(1)[:, :2]

        images, labels = torch.rand(2, 1, 2, 2), torch.tensor([0, 1])
        noisy = n_fgsm(lambda batch: 0 * batch.flatten(1), images, labels, torch.Generator().manual_seed(0), 0.1, 0.1)
        moved = n_fgsm(network, images, labels, torch.Generator().manual_seed(0), 0.1, 0.1)
        assert (moved != noisy).flatten(1)[:, :2].all()


class TestDeterminism:
    def test_torch_is_asked_for_it_while_training_and_a_cpu_computes_the_same_bits(
        self, digits_recipe: Recipe, few: Splits, silent: Observer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
        settings, runs = Settings(), []
        for value, observer in (("true", settings), ("false", silent)):
            recipe = override_recipe(digits_recipe, ("train.epochs=1", f"train.deterministic={value}"))
            runs.append(train(recipe, few, tmp_path / value, observer).weights())
        assert set(settings.deterministic) == {True}
        assert not torch.are_deterministic_algorithms_enabled()
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert all(runs[0][name].tobytes() == runs[1][name].tobytes() for name in runs[1])

    @pytest.mark.parametrize("command", ["train quickstart", "compare compare-small"])
    @pytest.mark.parametrize("value", ["true", "false"])
    def test_cublas_is_told_before_cuda_starts(self, tmp_path: Path, command: str, value: str) -> None:
        """In a process of its own; opening the device is the first that CUDA hears of."""
        program = """
import os, sys, torch
from floats_edge.cli.main import cli
def opened(*_, **options):
    print(options["device"], os.environ.get("CUBLAS_WORKSPACE_CONFIG"), torch.cuda.is_initialized())
    raise RuntimeError("no GPU")
torch.empty = opened
cli(sys.argv[1:])
"""
        words = [
            *command.split(),
            "--device",
            "cuda",
            "-o",
            f"train.deterministic={value}",
            "--out",
            str(tmp_path / "run"),
        ]
        environment = {name: text for name, text in os.environ.items() if name != "CUBLAS_WORKSPACE_CONFIG"}
        done = subprocess.run(
            [sys.executable, "-c", program, *words], env=environment, capture_output=True, text=True, check=False
        )
        told = ":4096:8" if value == "true" else "None"
        assert done.stdout.split() == ["cuda:0", told, "False"], done.stderr

    def test_too_late_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
        with torch_settings(Train(), torch.device("cpu")):
            pass
        with (
            pytest.raises(BackendError, match=r"deterministic comes too late") as caught,
            torch_settings(Train(deterministic=True), torch.device("cpu")),
        ):
            pass
        assert "CUBLAS_WORKSPACE_CONFIG=:4096:8" in caught.value.fix
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
        with torch_settings(Train(deterministic=True), torch.device("cpu")):
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


class TestCompile:
    def test_a_compiled_step_computes_the_same(
        self, digits_recipe: Recipe, few: Splits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All of torch.compile but its code generator, whose C++ takes a minute to build."""
        original = torch.nn.Module.compile
        monkeypatch.setattr(torch.nn.Module, "compile", lambda network: original(network, backend="aot_eager"))
        torch._dynamo.reset()
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        compiled, eager = (trainer(digits_recipe, few, f"train.compile={value}") for value in ("true", "false"))
        theirs, ours = update(compiled), update(eager)
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= graphs + 3, "attack and both halves"
        torch.testing.assert_close(theirs.total, ours.total, rtol=1e-4, atol=1e-4)
        assert compiled.weights().keys() == eager.weights().keys()

    def test_so_does_a_narrower_network(
        self, digits_recipe: Recipe, few: Splits, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = torch.nn.Module.compile
        monkeypatch.setattr(torch.nn.Module, "compile", lambda network: original(network, backend="aot_eager"))
        options = ("sparsity.pattern=channel", "sparsity.density=0.5", "sparsity.multiple=2")
        losses = []
        for value in ("true", "false"):
            subject = trainer(digits_recipe, few, f"train.compile={value}", *options)
            subject.updater.after_step(subject.updater.last_dense_step, subject.optimizer)
            graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
            losses.append(update(subject).total)
            made = torch._dynamo.utils.counters["stats"]["unique_graphs"] - graphs
            assert made >= 3 if value == "true" else made == 0
        torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-4)

    def test_what_the_compiler_lacks_is_told(self) -> None:
        def lacking(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> None:
            raise OSError("no C++ compiler")

        with (
            pytest.raises(BackendError, match=r"torch\.compile failed: .*no C\+\+ compiler") as caught,
            torch_settings(Train(compile=True), torch.device("cpu")),
        ):
            torch.compile(lambda x: x + 1, backend=lacking)(torch.ones(1))
        assert "train.compile=false" in caught.value.fix
