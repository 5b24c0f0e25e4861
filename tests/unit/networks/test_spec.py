import pytest
from pydantic import ValidationError

from floats_edge.networks.spec import ImageSpec, NetworkSpec
from floats_edge.preprocessing import Preprocessing


def test_it_survives_json_with_the_types_of_its_arguments() -> None:
    arguments = {"a": 1, "b": 1.5, "c": True, "d": "1", "e": None, "f": [1, 2.5, "x"]}
    spec = NetworkSpec.model_validate({"source": "timm", "name": "x", "arguments": arguments, "weights": "w.pth"})
    back = NetworkSpec.model_validate_json(spec.model_dump_json())
    assert back == spec
    assert {key: type(value) for key, value in back.arguments.items()} == {k: type(v) for k, v in arguments.items()}


def test_a_title_is_for_people() -> None:
    assert NetworkSpec(name="resnet8", arguments={"width": 8}).title == "resnet8, width 8"
    assert NetworkSpec(source="torchvision", name="mobilenet_v2").title == "torchvision mobilenet_v2"


@pytest.mark.parametrize("name", ["mine", "mine:", ":f", "mine:f()", "../mine:f", "a:b:c", "a b:c", "a..b:c"])
def test_python_code_has_a_module_and_a_function(name: str) -> None:
    with pytest.raises(ValidationError, match=r"package\.module:function"):
        NetworkSpec(source="python", name=name)


@pytest.mark.parametrize(
    "values", [{"source": "hub", "name": "x"}, {"name": "x", "url": "y"}, {"name": "x", "arguments": {"a": {"b": 1}}}]
)
def test_what_is_no_network_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        NetworkSpec.model_validate(values)


@pytest.mark.parametrize("changes", [{"mean": (0.5,)}, {"std": (0.2, 0.2, 0.0)}, {"std": (0.2, 0.2, float("nan"))}])
def test_images_have_statistics_for_each_channel(changes: dict[str, object]) -> None:
    values = {"preprocessing": Preprocessing().resolved((3, 8, 8)), "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}
    with pytest.raises(ValidationError):
        ImageSpec.model_validate({**values, **changes})
