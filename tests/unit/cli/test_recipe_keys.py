"""``floats-edge train --keys``: every key of a recipe, as it can be given with ``-o``."""

import re

from click.testing import CliRunner
from pydantic import BaseModel

from floats_edge.cli.main import cli
from floats_edge.recipe import Recipe
from floats_edge.recipe_file import override_recipe

NEEDED = {"name", "model.name", "attack.kind", "attack.epsilon", "evaluate.attack.kind", "evaluate.attack.epsilon"}
ATTACK = {"kind": "n-fgsm", "epsilon": 0.1}
BARE = Recipe.model_validate({"name": "bare", "attack": ATTACK, "evaluate": {"attack": ATTACK}})


def keys_of(section: BaseModel, prefix: str = "") -> set[str]:
    """As a recipe's values have them, not as its schema does."""
    keys = set()
    for name in type(section).model_fields:
        value = getattr(section, name)
        keys |= keys_of(value, f"{prefix}{name}.") if isinstance(value, BaseModel) else {prefix + name}
    return keys


def listed() -> dict[str, str | None]:
    """Every key that is printed, and its default."""
    result = CliRunner().invoke(cli, ["train", "--keys"])
    assert result.exit_code == 0, result.output
    lines = re.finditer(r"^  ([a-z_]+(?:\.[a-z0-9_]+)*)(?:=(.*?))?(?:  .*)?$", result.output, re.MULTILINE)
    return {match[1]: match[2] for match in lines}


def test_no_key_is_missing_and_none_made_up() -> None:
    assert set(listed()) == keys_of(BARE)


def test_its_defaults_are_those_of_a_recipe_and_can_be_given_as_they_stand() -> None:
    defaults = {key: default for key, default in listed().items() if default is not None}
    assert keys_of(BARE) - set(defaults) == NEEDED
    changed = override_recipe(BARE, ("train.lr=7", "sparsity.density=0.5", "data.flip=true", "evaluate.lambdas=[1]"))
    assert changed != BARE
    assert override_recipe(changed, tuple(f"{key}={default}" for key, default in defaults.items())) == BARE


def test_a_key_says_what_it_does_and_what_it_takes() -> None:
    words = " ".join(CliRunner().invoke(cli, ["train", "--keys"], terminal_width=200).output.split())
    assert "train.lr=0.1 learning rate at its highest, after warm-up (number > 0)" in words
    assert "(off | bf16 | fp16)" in words
    assert words.count("must be given: ") == len(NEEDED) - 1
    assert "model.name must be given if model is: of the network in its source" in words
    attacks = "(pgd | fgsm-rs | n-fgsm)", "(pgd | fgsm-rs | n-fgsm | autoattack)"
    assert [words.count(taken) for taken in attacks] == [1, 1], "of training, and of evaluation"
    assert "sparsity: Which weights FLOATS masks. Only method float reads it." in words
