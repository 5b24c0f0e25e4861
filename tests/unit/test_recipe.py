import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from floats_edge.errors import RecipeError
from floats_edge.networks.spec import Statistics
from floats_edge.preprocessing import Preprocessing
from floats_edge.recipe_file import dump_recipe, load_recipe, override_recipe, parse_recipe, recipe_folder

NAMES = sorted(path.stem for path in recipe_folder().glob("*.yaml") if "\nvariants:" not in path.read_text())


def error_of(*overrides: str) -> RecipeError:
    with pytest.raises(RecipeError) as caught:
        load_recipe("quickstart", overrides)
    return caught.value


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_of_the_package_loads_and_is_named_like_its_file(name: str) -> None:
    assert load_recipe(name).name == name


def test_the_package_comes_with_the_recipe_of_the_quickstart() -> None:
    assert "quickstart" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_round_trip(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    file = tmp_path / "recipe.yaml"
    file.write_text(dump_recipe(recipe))
    assert load_recipe(file) == recipe
    assert load_recipe(str(file)) == recipe


@settings(max_examples=30)
@given(
    epsilon=st.floats(1e-6, 1),
    density=st.floats(1e-6, 1),
    seed=st.integers(0, 2**31 - 1),
    noise_seed=st.integers(0, 2**63 - 1),
    lambdas=st.lists(st.floats(0, 1), min_size=1, max_size=4),
)
def test_numbers_survive_the_round_trip_bit_for_bit(
    epsilon: float, density: float, seed: int, noise_seed: int, lambdas: list[float]
) -> None:
    overrides = {
        "attack.epsilon": f"{epsilon:.17f}",
        "sparsity.density": f"{density:.17f}",
        "seed": seed,
        "condition.noise_seed": noise_seed,
        "evaluate.lambdas": [f"{lam:.17f}" for lam in lambdas],
    }
    recipe = load_recipe("quickstart", tuple(f"{key}={value}" for key, value in overrides.items()))
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe)), "again") == recipe


def test_defaults_are_the_papers() -> None:
    recipe = load_recipe("quickstart")
    assert recipe.condition.rule == "interpolate"
    assert recipe.condition.noise_seed == 0
    assert recipe.evaluate.lambdas == (0, 0.25, 0.5, 0.75, 1)


def test_overrides_reach_any_depth_and_leave_the_rest() -> None:
    recipe = load_recipe("quickstart", ("train.epochs=3", "evaluate.attack.epsilon=8/255", "data.train_images=null"))
    assert recipe.train.epochs == 3
    assert recipe.evaluate.attack.epsilon == pytest.approx(8 / 255)
    assert recipe.data.train_images is None
    assert recipe.attack == load_recipe("quickstart").attack
    assert override_recipe(recipe, ("train.epochs=20", "evaluate.attack.epsilon=0.15")) == load_recipe("quickstart")


def test_off_is_a_word_although_yaml_reads_it_as_false() -> None:
    recipe = load_recipe("quickstart", ("train.amp=bf16", "train.amp=off"))
    assert recipe.train.amp == "off"
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe)), "again") == recipe
    assert error_of("train.amp=true").fix.startswith("correct train.amp")


def test_the_last_of_two_overrides_counts() -> None:
    assert load_recipe("quickstart", ("seed=1", "seed=2")).seed == 2


@pytest.mark.parametrize("text", ["8/255", "8 / 255", " 8/255"])
def test_fractions(text: str) -> None:
    assert load_recipe("quickstart", (f"attack.epsilon={text}",)).attack.epsilon == 8 / 255


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        load_recipe("quickstart").seed = 1


@pytest.mark.parametrize(
    ("override", "fix"),
    [
        ("train.epoch=3", "did you mean 'train.epochs'?"),
        ("sparsity.densty=0.1", "did you mean 'sparsity.density'?"),
        ("evaluate.attack.epsilom=0.1", "did you mean 'evaluate.attack.epsilon'?"),
        ("trian.epochs=3", "did you mean 'train'?"),
        ("train.zzz=3", "the keys here are: epochs, batch_size, lr"),
    ],
)
def test_unknown_key_names_the_nearest(override: str, fix: str) -> None:
    error = error_of(override)
    assert override.partition("=")[0].split(".")[0] in error.what
    assert fix in error.fix


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("train.lr=.nan", "train.lr"),
        ("train.lr=.inf", "train.lr"),
        ("train.lr=-0.1", "train.lr"),
        ("train.lr=fast", "train.lr"),
        ("train.epochs=0", "train.epochs"),
        ("train.epochs=", "train.epochs"),
        ("train.batch_size=63", "train.batch_size"),
        ("train.warmup=1", "train.warmup"),
        ("train.momentum=0", "train.momentum"),
        ("train.label_smoothing=1", "train.label_smoothing"),
        ("pgd_at.weight=0", "pgd_at.weight"),
        ("pgd_at.weight=1.5", "pgd_at.weight"),
        ("trades.beta=0", "trades.beta"),
        ("sparsity.density=0", "sparsity.density"),
        ("sparsity.density=1.5", "sparsity.density"),
        ("sparsity.density=.nan", "sparsity.density"),
        ("attack.epsilon=0", "attack.epsilon"),
        ("attack.epsilon=8/0", "attack.epsilon"),
        ("attack.epsilon=a/b", "attack.epsilon"),
        ("attack.kind=deepfool", "attack.kind"),
        ("attack.steps=7", "attack"),
        ("evaluate.lambdas=[0, 1.5]", "evaluate.lambdas.1"),
        ("evaluate.lambdas=[.nan]", "evaluate.lambdas.0"),
        ("evaluate.lambdas=[]", "evaluate.lambdas"),
        ("model.source=hub", "model.source"),
        ("model=3", "model"),
        ("name=../../etc", "name"),
        ("name=2001-01-01", "name"),
        ("seed=-1", "seed"),
    ],
)
def test_invalid_value_names_its_key(override: str, key: str) -> None:
    error = error_of(override)
    assert f"quickstart: {key}: " in error.what
    assert key in error.fix


@pytest.mark.parametrize("section", ["attack", "evaluate.attack"])
def test_pgd_has_no_default_number_of_steps(section: str) -> None:
    pgd = f"{section}={{kind: pgd, epsilon: 0.1}}"
    error = error_of(pgd)
    assert f"quickstart: {section}.steps: pgd needs a number of steps; usual are 7 to train and 20" in error.what
    assert f"-o {section}.steps=" in error.fix
    recipe = load_recipe("quickstart", (pgd, f"{section}.steps=1"))
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe)), "again") == recipe


def test_an_attack_of_one_step_that_becomes_pgd_needs_steps_too() -> None:
    """In a recipe as a run or a bundle keeps it, today's or one whose single step is written out."""
    recipe = load_recipe("quickstart")
    older = recipe.model_dump(mode="json")
    older["attack"]["steps"] = 1
    for kept in (recipe, parse_recipe(yaml.safe_load(dump_recipe(recipe)), "again"), parse_recipe(older, "older")):
        assert kept == recipe
        with pytest.raises(RecipeError, match="pgd needs a number of steps"):
            override_recipe(kept, ("attack.kind=pgd",))


def test_8_bit_units_are_recognised() -> None:
    assert "8-bit units" in error_of("attack.epsilon=8").what
    assert "8/255" in error_of("attack.epsilon=8").what


def test_preprocessing_is_written_short_and_kept_whole() -> None:
    recipe = load_recipe("quickstart", ("data.preprocessing={size: 96, resize: pad, antialias: false}",))
    assert recipe.data.preprocessing == Preprocessing(size=(96, 96), resize="pad", antialias=False)
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe)), "again") == recipe
    sides = override_recipe(recipe, ("data.preprocessing.size=[96, 64]", "data.preprocessing.colours=bgr"))
    assert sides.data.preprocessing == Preprocessing(size=(96, 64), resize="pad", antialias=False, colours="bgr")


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("data.image_size=32", "there is no key 'data.image_size'"),
        ("data.preprocessing.sise=32", "there is no key 'data.preprocessing.sise'"),
        ("data.preprocessing.size=5000", "data.preprocessing.size: 5000 is outside of 1 to 4096 pixels"),
        ("data.preprocessing.size=[8, 8, 8]", "data.preprocessing.size: [8, 8, 8] is neither a number of pixels nor"),
        ("data.preprocessing.resize_size=8", "data.preprocessing: resize_size (8, 8) needs a size that is no larger"),
        ("data={preprocessing: {colours: bgr}, statistics: pretrained}", "data: statistics: pretrained are those of"),
    ],
)
def test_what_is_no_preprocessing(override: str, told: str) -> None:
    error = error_of(override)
    assert told in error.what
    if "sise" in override:
        assert error.fix == "did you mean 'data.preprocessing.size'?"


def test_statistics_are_declared_in_a_file_and_on_a_command_line(tmp_path: Path) -> None:
    wanted = Statistics(mean=(0.5, 0.4, 0), std=(1, 0.25, 0.125))
    recipe = load_recipe("quickstart", ("data.statistics={mean: [0.5, 0.4, 0], std: [1, 0.25, 0.125]}",))
    assert recipe.data.statistics == wanted
    (tmp_path / "mine.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "mine.yaml") == recipe
    assert override_recipe(recipe, ("seed=1", "data.statistics.mean=[0.5, 0.4, 0]")).data == recipe.data
    assert override_recipe(recipe, ("data.statistics=images",)).data.statistics == "images"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("imagenet", "'imagenet' is neither images nor pretrained nor {mean: [...], std: [...]}"),
        ("[0.5]", "[0.5] is neither images nor"),
        ("{mean: [0.5]}", "{'mean': [0.5]} is neither images nor"),
        ("{mean: [0.5], std: [0.5], var: [1]}", "is neither images nor"),
        ("{mean: 0.5, std: 0.5}", "0.5 is no list of numbers"),
        ("{mean: [a], std: [0.5]}", "['a'] is no list of numbers"),
        ("{mean: [0.5], std: [true]}", "[True] is no list of numbers"),
        ("{mean: [0.5, 0.5, 0.5], std: [0.5]}", "for each channel, of which images have 1 or 3, not 3 and 1"),
        ("{mean: [0.5, 0.5], std: [0.5, 0.5]}", "of which images have 1 or 3, not 2 and 2"),
        ("{mean: [123.7], std: [58.4]}", "not [123.7] and [58.4]: divide 8-bit units by 255"),
        ("{mean: [0.5], std: [0]}", "a deviation above 0 and up to 1, not [0.5] and [0]"),
        ("{mean: [-0.1], std: [0.5]}", "a mean is from 0 to 1"),
        ("{mean: [.nan], std: [0.5]}", "a mean is from 0 to 1"),
    ],
)
def test_what_is_no_statistics(value: str, told: str) -> None:
    error = error_of(f"data.statistics={value}")
    assert error.what.startswith("quickstart: data.statistics: ")
    assert told in error.what


@pytest.mark.parametrize(("colours", "count"), [("grey", 3), ("rgb", 1), ("bgr", 1)])
def test_statistics_go_with_the_colours(colours: str, count: int) -> None:
    declared = {"mean": [0.5] * count, "std": [0.5] * count}
    error = error_of(f"data={{preprocessing: {{colours: {colours}}}, statistics: {declared}}}")
    assert f"statistics of {count} channels are not those of colours: {colours}, which has {4 - count}" in error.what


PATTERNS = {
    "irregular": ("density=0.2", "layer_densities=uniform", "update_every=1", "swap_rate=0.1"),
    "2:4": ("update_every=1", "swap_rate=0.1"),
    "channel": ("density=0.2", "multiple=4"),
}
"""What each pattern reads, none of it at its default."""


@pytest.mark.parametrize("pattern", PATTERNS)
def test_what_a_pattern_does_not_read_is_refused(pattern: str) -> None:
    density = {"channel": ("sparsity.density=0.5",), "2:4": ("sparsity.density=1",)}.get(pattern, ())
    chosen = (f"sparsity.pattern={pattern}", *density)
    for option in {option for options in PATTERNS.values() for option in options}:
        overrides = (*chosen, f"sparsity.{option}")
        if option in PATTERNS[pattern]:
            load_recipe("quickstart", overrides)
            continue
        key = option.partition("=")[0]
        what = error_of(*overrides).what
        assert f"pattern {pattern} does not read {key}: leave {key} out or at " in what
        others = [other for other, options in PATTERNS.items() if option in options]
        assert what.endswith(f"or choose pattern {' or '.join(others)}.")


@pytest.mark.parametrize(
    ("method", "override", "reader"),
    [
        ("pgd-at", "sparsity.density=0.3", "float"),
        ("oat", "sparsity.pattern=2:4", "float"),
        ("pgd-at", "condition.alpha=0", "float"),
        ("standard", "condition.rule=paper", "float"),
        ("float", "oat.encoding=none", "oat"),
        ("trades", "pgd_at.weight=0.5", "pgd-at"),
        ("pgd-at", "trades.beta=1", "trades"),
    ],
)
def test_what_a_method_does_not_read_is_refused(method: str, override: str, reader: str) -> None:
    plain = (f"method={method}", "evaluate.lambdas=[0]", *(() if method == "float" else ("sparsity={}",)))
    load_recipe("quickstart", plain)
    section = override.partition(".")[0]
    what = error_of(*plain, override).what
    assert (
        f"method {method} does not read {section}: leave {section} out (-o {section}={{}}), or choose method {reader}."
        in what
    )


def test_defaults_may_be_written_out() -> None:
    written = (
        "sparsity={pattern: channel, density: 0.5, swap_rate: 0.3, layer_densities: erk}",
        "oat={dimensions: 128}",
    )
    assert load_recipe("quickstart", written).sparsity.pattern == "channel"


@pytest.mark.parametrize("override", ["train.epochs", "=3", "", "train.epochs: 3"])
def test_override_without_key_or_value(override: str) -> None:
    assert "not of the form key=value" in error_of(override).what


@pytest.mark.parametrize("override", ["seed=[1", "seed=2001-99-99", f"seed={'[' * 500}"])
def test_override_that_is_not_yaml(override: str) -> None:
    assert "is not YAML" in error_of(override).what


def test_override_below_a_value() -> None:
    assert "name has no keys" in error_of("name.first=x").what


def test_unknown_recipe_lists_those_there_are() -> None:
    with pytest.raises(RecipeError, match="there is no recipe 'quikstart'") as caught:
        load_recipe("quikstart")
    assert all(name in caught.value.fix for name in NAMES)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "holds no keys"),
        (b"- a\n- b\n", "holds no keys"),
        (b"name: [unclosed\n", "cannot be read as YAML"),
        (b"name: \xff\n", "cannot be read as YAML"),
        (b"name: 2001-99-99\n", "cannot be read as YAML"),
        (b"!!python/object/apply:os.system [exit]\n", "cannot be read as YAML"),
    ],
)
def test_damaged_file(tmp_path: Path, content: bytes, what: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_bytes(content)
    with pytest.raises(RecipeError, match=what) as caught:
        load_recipe(file)
    assert str(file) in caught.value.what
    assert "\n" not in caught.value.what


def test_missing_file_and_directory(tmp_path: Path) -> None:
    for path in (tmp_path / "no.yaml", tmp_path):
        with pytest.raises(RecipeError, match="there is no recipe"):
            load_recipe(path)


def test_all_missing_keys_are_named_at_once_as_they_can_be_given(tmp_path: Path) -> None:
    values = {"model": {"source": "torchvision"}, "evaluate": {"attack": {"kind": "pgd", "steps": 20}}}
    with pytest.raises(RecipeError) as caught:
        parse_recipe(values, "mine")
    told = "mine: these keys are missing: name, model.name, attack.kind, attack.epsilon, evaluate.attack.epsilon."
    assert caught.value.what == told
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    given = ("name=a", "model.name=b", "attack.kind=n-fgsm", "attack.epsilon=0.1", "evaluate.attack.epsilon=0.1")
    assert load_recipe(tmp_path / "mine.yaml", given).model.name == "b"


def test_a_misspelt_key_is_told_before_the_one_that_it_leaves_missing() -> None:
    values = load_recipe("quickstart").model_dump()
    values["atack"] = values.pop("attack")
    with pytest.raises(RecipeError, match="there is no key 'atack'") as caught:
        parse_recipe(values, "mine")
    assert "'attack'" in caught.value.fix


def test_the_recipe_in_the_readme_loads() -> None:
    written = re.findall(r"```yaml\n(name: .*?)```", (recipe_folder() / "README.md").read_text(), re.DOTALL)
    assert [parse_recipe(yaml.safe_load(recipe), "README").name for recipe in written] == ["mine"]
