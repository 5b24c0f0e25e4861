"""What may be compared with what."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from floats_edge.baselines.spec import Oat
from floats_edge.cli.main import cli
from floats_edge.compare.plan import load_plan, with_seed
from floats_edge.errors import RecipeError
from floats_edge.method.conditioning import INITIAL_ALPHA
from floats_edge.recipe import Condition, Sparsity
from floats_edge.recipe_file import load_recipe

BASE = """
name: base
attack: {kind: pgd, epsilon: 0.1, steps: 7}
train: {epochs: 3}
evaluate: {attack: {kind: pgd, epsilon: 0.1, steps: 20}}
"""


def written(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_variants_change_what_they_name_and_nothing_else(tmp_path: Path) -> None:
    path = written(tmp_path, f"{BASE}variants:\n  plain: {{}}\n  quick: {{attack: {{kind: n-fgsm, steps: 1}}}}\n")
    plan = load_plan([path], ("train.epochs=5",)).variants
    assert list(plan) == ["plain", "quick"]
    assert plan["quick"].attack.kind == "n-fgsm"
    assert plan["quick"].attack.epsilon == 0.1
    assert plan["plain"].name == "plain"
    assert {recipe.train.epochs for recipe in plan.values()} == {5}
    assert plan["quick"].model_copy(update={"attack": plan["plain"].attack, "name": "plain"}) == plan["plain"]


def test_ordinary_recipes_are_variants_of_their_name(tmp_path: Path) -> None:
    one = written(tmp_path, BASE, "one.yaml")
    other = written(tmp_path, BASE.replace("base", "sparse") + "sparsity: {density: 0.1}\n", "other.yaml")
    assert list(load_plan([one, other]).variants) == ["base", "sparse"]


COMPARISONS = ["compare-noise", "compare-patterns", "compare-small", "paper-cifar10", "paper-stl10", "paper-svhn"]
SHARED = ("condition.noise=resample", "oat.dimensions=16", "sparsity.update_every=2", "sparsity.multiple=4")


def test_of_what_is_shared_a_variant_takes_what_it_reads() -> None:
    plan = load_plan(["paper-cifar10"], SHARED).variants
    assert plan["oat"].oat.dimensions == 16
    assert plan["float"].condition.noise == plan["float-alpha-0"].condition.noise == "resample"
    assert plan["oat"].condition == plan["pgd-at"].condition == Condition()
    assert plan["pgd-at"].oat == plan["float"].oat == Oat()
    assert plan["oat"].sparsity == Sparsity()
    every = {name: (recipe.sparsity.update_every, recipe.sparsity.multiple) for name, recipe in plan.items()}
    assert every["floats-irregular-0.1"] == every["floats-2-4"] == (2, 8)
    assert every["floats-channel-0.5"] == (0.5, 4)


@pytest.mark.parametrize("pattern", ["2:4", "'2:4'"])
def test_a_pattern_that_sets_the_density_does_not_take_the_shared_one(tmp_path: Path, pattern: str) -> None:
    variants = f"variants:\n  a: {{}}\n  b: {{sparsity: {{pattern: {pattern}}}}}\n"
    plan = load_plan([written(tmp_path, f"{BASE}sparsity: {{density: 0.3, swap_rate: 0.1}}\n{variants}")]).variants
    assert plan["a"].sparsity == Sparsity(density=0.3, swap_rate=0.1)
    assert plan["b"].sparsity == Sparsity(pattern="2:4", swap_rate=0.1)


def test_what_a_variant_itself_says_must_be_read(tmp_path: Path) -> None:
    path = written(
        tmp_path, f"{BASE}variants:\n  bad: {{sparsity: {{pattern: channel, density: 0.5, swap_rate: 0.1}}}}\n"
    )
    with pytest.raises(RecipeError, match="variant bad: sparsity: pattern channel does not read swap_rate"):
        load_plan([path])


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ("train: {epochs: 4}", "train"),
        ("data: {crop: 0}", "data"),
        ("model: {name: resnet14}", "model.name"),
        ("model: {name: resnet8, weights: pretrained.safetensors}", "model.weights"),
        ("seed: 3", "seed"),
        ("attack: {epsilon: 0.2}", "attack.epsilon"),
        ("evaluate: {images: 7}", "evaluate.images"),
        ("evaluate: {attack: {steps: 5}}", "evaluate.attack"),
    ],
)
def test_unequal_footing_is_refused(tmp_path: Path, changes: str, key: str) -> None:
    path = written(tmp_path, f"{BASE}variants:\n  a: {{}}\n  b: {{{changes}}}\n")
    with pytest.raises(RecipeError, match=f"a and b are not on equal footing: they differ in {key}"):
        load_plan([path])


def test_lambdas_may_differ(tmp_path: Path) -> None:
    path = written(tmp_path, f"{BASE}variants:\n  a: {{}}\n  b: {{evaluate: {{lambdas: [0, 1]}}}}\n")
    assert load_plan([path]).variants["b"].evaluate.lambdas == (0.0, 1.0)


GROUPED = f"{BASE}variants:\n  clean: {{method: standard}}\n  hard: {{method: pgd-at}}\n  knob: {{}}\n"


def test_the_first_variant_is_the_reference_unless_another_is_named(tmp_path: Path) -> None:
    assert load_plan([written(tmp_path, GROUPED)]).reference == "clean"
    assert load_plan([written(tmp_path, f"{GROUPED}reference: knob\n")]).reference == "knob"
    assert load_plan([written(tmp_path, GROUPED)], ("reference=hard",)).reference_variants == ("hard",)


def test_an_envelope_can_be_the_reference(tmp_path: Path) -> None:
    plan = load_plan([written(tmp_path, f"{GROUPED}reference: both\nenvelopes: {{both: [clean, hard]}}\n")])
    assert plan.envelopes == {"both": ("clean", "hard")}
    assert plan.reference_variants == ("clean", "hard")


@pytest.mark.parametrize(
    ("lines", "message", "fix"),
    [
        ("reference: other", "no variant 'other' to refer to", "set reference to one of: clean, hard, knob"),
        ("envelopes: {both: [clean, other]}", "envelope both: there is no variant 'other'", "clean, hard, knob"),
        ("envelopes: {both: [clean, knob]}", "knob is of method float, which has a knob", "take knob out"),
        ("envelopes: {hard: [clean]}", "'hard' is a variant and an envelope", "rename"),
        ("envelopes: {both: clean}", "envelopes names no variants", "name: .variant, variant"),
        ("envelopes: {both: [clean, clean]}", "envelope both names 'clean' twice", "name it once"),
        ("envelopes: [clean]", "envelopes names no variants", "name: .variant, variant"),
    ],
)
def test_names_that_do_not_fit_are_refused(tmp_path: Path, lines: str, message: str, fix: str) -> None:
    with pytest.raises(RecipeError, match=message) as caught:
        load_plan([written(tmp_path, f"{GROUPED}{lines}\n")])
    assert re.search(fix, caught.value.fix)


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="two variants 'base'"):
        load_plan([written(tmp_path, BASE)] * 2)


def test_errors_name_the_variant(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="variant bad: method:"):
        load_plan([written(tmp_path, f"{BASE}variants:\n  bad: {{method: magic}}\n")])
    with pytest.raises(RecipeError, match="variants names no variants"):
        load_plan([written(tmp_path, f"{BASE}variants: [a]\n")])


def test_a_comparison_is_no_recipe_to_train() -> None:
    with pytest.raises(RecipeError, match="compares several recipes") as caught:
        load_recipe("compare-small")
    assert caught.value.fix == "floats-edge compare compare-small"


def test_seeds_count_from_the_recipe_s_own(tmp_path: Path) -> None:
    recipe = load_plan([written(tmp_path, BASE + "seed: 5\n")]).variants["base"]
    assert [with_seed(recipe, index).seed for index in range(2)] == [5, 6]


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_that_come_with_the_package_stand_on_equal_footing(name: str) -> None:
    assert len(load_plan([name]).variants) > 1


def test_compare_small_holds_what_the_claims_need() -> None:
    plan = load_plan(["compare-small"])
    assert plan.envelopes[plan.reference] == ("standard", "pgd-at")
    assert {recipe.method for recipe in plan.variants.values()} == {"standard", "pgd-at", "oat", "float"}
    assert plan.variants["float-alpha-0"].condition.alpha == 0
    narrow, wide = plan.variants["floats-0.1"], plan.variants["floats-wide-0.1"]
    assert wide.model.arguments == {**narrow.model.arguments, "width": 48}
    assert wide.sparsity.density == pytest.approx(1 / 9, abs=0.002), "as many weights as a dense network of width 16"


def test_compare_patterns_differs_in_nothing_but_the_masks() -> None:
    plan = load_plan(["compare-patterns"]).variants
    patterns = [(recipe.sparsity.pattern, recipe.sparsity.density) for recipe in plan.values()]
    assert patterns == [("irregular", 1.0), ("irregular", 0.1), ("2:4", 1.0), ("channel", 0.5)]


def test_compare_noise_differs_in_nothing_but_the_noise() -> None:
    plan = load_plan(["compare-noise"]).variants
    kinds = {(recipe.condition.noise, recipe.condition.alpha) for recipe in plan.values()}
    fixed = INITIAL_ALPHA
    assert kinds == {
        ("frozen", 0),
        ("frozen", "trained"),
        ("frozen", fixed),
        ("resample", "trained"),
        ("resample", fixed),
    }
    assert (
        len(
            {
                recipe.model_copy(update={"name": "", "condition": Condition()}).model_dump_json()
                for recipe in plan.values()
            }
        )
        == 1
    )


def test_several_processes_of_one_comparison_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(cli, ["compare", "compare-small"])
    assert result.exit_code == 1
    assert "floats-edge compare runs in one process" in result.output
    assert "torchrun" in result.output
