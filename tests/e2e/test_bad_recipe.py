"""What a user gets for a recipe, an attack or a lambda that cannot be: one paragraph with a remedy."""

from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.commands import QUICK, assert_misused, assert_told, invoke, tree

from floats_edge.artifacts.bundle import Bundle

pytestmark = pytest.mark.usefixtures("one_thread")


class TestRecipe:
    def test_unknown_key(self, out: Path) -> None:
        result = invoke("train", "quickstart", "-o", "train.epoch=1", "--out", out)
        assert_told(result, "train.epoch", "did you mean 'train.epochs'?")
        assert not out.exists()

    def test_unknown_recipe(self, out: Path) -> None:
        assert_told(invoke("train", "quikstart", "--out", out), "quikstart", "quickstart")

    def test_not_a_number(self, out: Path) -> None:
        assert_told(invoke("train", "quickstart", "-o", "train.lr=.nan", "--out", out), "train.lr")

    def test_8_bit_epsilon(self, out: Path) -> None:
        assert_told(invoke("train", "quickstart", "-o", "attack.epsilon=8", "--out", out), "8/255")

    def test_lambda_outside(self, out: Path) -> None:
        result = invoke("train", "quickstart", "-o", "evaluate.lambdas=[0, 1.5]", "--out", out)
        assert_told(result, "evaluate.lambdas.1")

    def test_file_that_is_not_yaml(self, tmp_path: Path, out: Path) -> None:
        (tmp_path / "bad.yaml").write_text("name: [x\ntrain: }\n")
        assert_told(invoke("train", tmp_path / "bad.yaml", "--out", out), "bad.yaml", "YAML")

    def test_batch_larger_than_the_data(self, out: Path) -> None:
        result = invoke("train", "quickstart", *QUICK, "-o", "train.batch_size=5000", "--out", out)
        assert_told(result, "5000", "train.batch_size")
        assert not out.exists()

    def test_density_that_leaves_nothing(self, out: Path) -> None:
        result = invoke("train", "quickstart", *QUICK, "-o", "sparsity.density=0.0001", "--out", out)
        assert_told(result, "density", "sparsity.density")
        assert not out.exists()

    @pytest.mark.parametrize("density", ["0", "1.5", "-0.1"])
    def test_density_that_is_none(self, density: str, out: Path) -> None:
        result = invoke("train", "quickstart", *QUICK, "-o", f"sparsity.density={density}", "--out", out)
        assert_told(result, "sparsity.density", "than")
        assert not out.exists()

    def test_a_network_that_there_is_not(self, out: Path) -> None:
        result = invoke("train", "quickstart", *QUICK, "-o", "model.name=resnet9", "--out", out)
        assert_told(result, "no network 'resnet9'", "resnet8")
        assert not out.exists()

    def test_code_that_was_not_allowed(self, out: Path) -> None:
        options = ("-o", "model={source: python, name: antigravity:fly}")
        result = invoke("train", "quickstart", *QUICK, *options, "--out", out)
        assert_told(result, "only if you allow it", "--allow-code")
        assert not out.exists()

    def test_learning_rate_that_diverges(self, out: Path) -> None:
        result = invoke("train", "quickstart", *QUICK, "-o", "train.lr=1e15", "-o", "train.warmup=0", "--out", out)
        assert_told(result, "diverged", "train.lr")


class TestAttack:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (["--epsilon", "8"], "write 8/255"),
            (["--epsilon", "0"], "greater than 0"),
            (["--epsilon", "large"], "epsilon"),
            (["--attack", "autoattack", "--steps", "7"], "autoattack takes no steps, restarts or loss"),
        ],
    )
    def test_that_cannot_be(self, options: list[str], message: str, run: Path, out: Path) -> None:
        result = invoke("evaluate", run, *options, "--device", "cpu", "-o", out)
        assert_told(result, message, "correct --attack, --epsilon")
        assert not out.exists()


class TestLambda:
    @pytest.mark.parametrize("lam", ["1.5", "-0.1", "nan", "inf", "half"])
    @pytest.mark.parametrize("command", ["evaluate", "export", "profile"])
    def test_that_is_none(self, command: str, lam: str, bundle: Path, out: Path) -> None:
        before = tree(bundle)
        assert_misused(invoke(command, bundle, f"--lambda={lam}", "-o", out), "--lambda", lam, "from 0")
        assert not out.exists()
        assert tree(bundle) == before

    def test_that_is_not_served(self, bundles: Callable[..., Bundle], out: Path) -> None:
        result = invoke("evaluate", bundles("fixed").path, "--lambda", "0.5", "--device", "cpu", "-o", out)
        assert_told(result, "serves lambda 0.3, not 0.5", "--lambda runtime")
        assert not out.exists()

    def test_runtime_and_a_value(self, bundle: Path, out: Path) -> None:
        assert_misused(invoke("export", bundle, "--lambda", "runtime", "--lambda", "1", "-o", out), "runtime")
