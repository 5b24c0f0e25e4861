import math
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from floats_edge.artifacts.files import pack_tensors
from floats_edge.artifacts.manifest import LayerSpec
from floats_edge.artifacts.weights import layer_specs, pack_weights, unpack_weights
from floats_edge.errors import ArtifactError
from floats_edge.method.fold import VECTORS, AffineLayer, masked_noise

SEED = 11


def layer(shape: tuple[int, ...], density: float, index: int = 0) -> AffineLayer:
    rng = np.random.default_rng(index)
    mask = np.ones(shape, dtype=bool) if density == 1 else rng.random(shape) < density
    vectors = {name: rng.normal(size=shape[0]).astype(np.float32) for name in VECTORS}
    return AffineLayer(
        theta=np.where(mask, rng.normal(size=shape), 0).astype(np.float32),
        mask=mask,
        noise=masked_noise(SEED, index, mask),
        **vectors,
    )


def narrow_layer(outputs: list[int], inputs: list[int], shape: tuple[int, ...], index: int = 0) -> AffineLayer:
    """What is left of a dense layer of ``shape`` without all but these channels."""
    whole = layer(shape, 1, index)
    left = np.ix_(outputs, inputs)
    drawn = np.zeros(shape, dtype=bool)
    drawn[left] = True
    return AffineLayer(
        theta=whole.theta[left],
        mask=whole.mask[left],
        noise=whole.noise[left],
        **{name: getattr(whole, name)[outputs] for name in VECTORS},
        drawn=drawn,
    )


@pytest.fixture
def layers() -> dict[str, AffineLayer]:
    return {"conv": layer((5, 3, 3, 3), 0.3, 0), "head": layer((4, 5), 1, 1)}


def assert_equal(first: AffineLayer, second: AffineLayer) -> None:
    for field in fields(AffineLayer):
        one, other = getattr(first, field.name), getattr(second, field.name)
        np.testing.assert_array_equal(np.reshape(one, -1), np.reshape(other, -1), field.name)
    assert first.theta.shape == second.theta.shape


@settings(max_examples=40)
@given(
    shape=st.lists(st.integers(1, 7), min_size=2, max_size=4).map(tuple), density=st.sampled_from([0.0, 0.2, 0.9, 1])
)
def test_round_trip(shape: tuple[int, ...], density: float) -> None:
    layers = {"first": layer((3, 3), 1, 0), "second": layer(shape, density, 1)}
    read = unpack_weights(pack_weights(layers), layer_specs(layers), SEED)
    assert list(read) == ["first", "second"]
    for name in layers:
        assert_equal(read[name], layers[name])


def test_weights_in_channels_last_memory_are_packed_in_c_order() -> None:
    plain = layer((5, 3, 3, 3), 0.4)
    strided = {
        name: np.asarray(getattr(plain, name)).transpose(0, 2, 3, 1).copy().transpose(0, 3, 1, 2)
        for name in ("theta", "mask")
    }
    assert not strided["theta"].flags.c_contiguous
    packed = pack_weights({"conv": replace(plain, **strided)})
    for name, tensor in pack_weights({"conv": plain}).items():
        np.testing.assert_array_equal(packed[name], tensor)


def test_a_sparse_layer_is_stored_as_its_values_and_one_bit_per_weight(layers: dict[str, AffineLayer]) -> None:
    """The layout that the docstring promises to other languages."""
    tensors = pack_weights(layers)
    mask, theta = layers["conv"].mask.reshape(-1), layers["conv"].theta.reshape(-1)
    np.testing.assert_array_equal(tensors["conv.theta"], theta[mask])
    assert tensors["conv.mask"].dtype == np.uint8
    bits = [int(tensors["conv.mask"][i // 8]) >> (i % 8) & 1 for i in range(mask.size)]
    np.testing.assert_array_equal(np.array(bits, dtype=bool), mask)
    assert "head.mask" not in tensors
    assert {tensors[f"head.{vector}"].shape for vector in VECTORS} == {(4,)}


def test_a_sparse_file_is_small() -> None:
    """At density 0.1: a tenth of the floats and one bit per weight, (0.1 * 32 + 1) / 32 = 13 % of the dense file."""
    shape = (64, 128, 3, 3)
    sparse = len(pack_tensors(pack_weights({"conv": layer(shape, 0.1)})))
    dense = len(pack_tensors(pack_weights({"conv": layer(shape, 1)})))
    assert dense == pytest.approx(4 * math.prod(shape), rel=0.02)
    assert sparse / dense == pytest.approx(0.13, abs=0.015)


def test_another_seed_is_another_noise(layers: dict[str, AffineLayer]) -> None:
    read = unpack_weights(pack_weights(layers), layer_specs(layers), SEED + 1)
    np.testing.assert_array_equal(read["conv"].theta, layers["conv"].theta)
    assert not np.array_equal(read["conv"].noise, layers["conv"].noise)


@pytest.mark.parametrize("name", ["conv.theta", "conv.mask", "conv.noise_slope", "conv.bias_slope", "head.gain_clean"])
def test_missing_tensor(layers: dict[str, AffineLayer], name: str) -> None:
    tensors = pack_weights(layers)
    del tensors[name]
    with pytest.raises(ArtifactError, match=rf"{name}: .* stated, missing found"):
        unpack_weights(tensors, layer_specs(layers), SEED)


@pytest.mark.parametrize("name", ["conv.theta", "conv.mask", "conv.noise_slope", "conv.bias_slope", "head.theta"])
def test_tensor_of_another_shape_or_type(layers: dict[str, AffineLayer], name: str) -> None:
    for change in (lambda t: t.reshape(-1)[:-1], lambda t: t.astype(np.float64)):
        tensors = pack_weights(layers)
        tensors[name] = change(tensors[name])
        with pytest.raises(ArtifactError, match=f"do not fit the manifest: {name}"):
            unpack_weights(tensors, layer_specs(layers), SEED)


def test_superfluous_tensor(layers: dict[str, AffineLayer]) -> None:
    tensors = pack_weights(layers) | {"conv.eta": np.zeros(3, np.float32)}
    with pytest.raises(ArtifactError, match=r"conv\.eta belongs to no layer"):
        unpack_weights(tensors, layer_specs(layers), SEED)


def test_mask_with_another_number_of_weights(layers: dict[str, AffineLayer]) -> None:
    tensors = pack_weights(layers)
    tensors["conv.mask"] = ~tensors["conv.mask"]
    with pytest.raises(ArtifactError, match=r"conv\.mask holds"):
        unpack_weights(tensors, layer_specs(layers), SEED)


def test_a_shape_that_fits_in_no_memory_is_refused_before_it_is_allocated(layers: dict[str, AffineLayer]) -> None:
    with pytest.raises(ValidationError, match="conv is larger than any memory"):
        LayerSpec(name="conv", shape=(2**31, 2, 1, 1), nonzeros=5)
    with pytest.raises(ValidationError, match="conv is larger than any memory"):
        LayerSpec(name="conv", shape=(8, 1, 1, 1), nonzeros=8, drawn=(2**16, 2**16, 1, 1))
    huge = LayerSpec(name="conv", shape=(2**31, 1, 1, 1), nonzeros=5)
    with pytest.raises(ArtifactError, match="do not fit the manifest"):
        unpack_weights(pack_weights(layers), [huge], SEED)
    dense = huge.model_copy(update={"nonzeros": math.prod(huge.shape)})
    with pytest.raises(ArtifactError, match="do not fit the manifest"):
        unpack_weights(pack_weights(layers), [dense], SEED)


class TestRemovedChannels:
    @pytest.fixture
    def narrow(self) -> dict[str, AffineLayer]:
        return {
            "conv": narrow_layer([0, 2, 5], [1, 3], (6, 4, 3, 3), 0),
            "head": narrow_layer([0, 1], [0, 4], (2, 6), 1),
        }

    def test_round_trip(self, narrow: dict[str, AffineLayer]) -> None:
        """The noise is that of the whole layer, at the places that are left."""
        read = unpack_weights(pack_weights(narrow), layer_specs(narrow), SEED)
        for name in narrow:
            assert_equal(read[name], narrow[name])
        assert read["conv"].noise.shape == (3, 2, 3, 3)
        assert read["conv"].mask.all()

    def test_layout(self, narrow: dict[str, AffineLayer]) -> None:
        tensors = pack_weights(narrow)
        assert tensors["conv.theta"].shape == (54,)
        bits = [int(tensors["conv.mask"][i // 8]) >> (i % 8) & 1 for i in range(6 * 4 * 9)]
        assert np.flatnonzero(np.array(bits).reshape(6, 4, 9).all(-1)[2]).tolist() == [1, 3]
        assert sum(bits) == 54
        (conv, _) = layer_specs(narrow)
        assert (conv.shape, conv.drawn, conv.nonzeros) == ((3, 2, 3, 3), (6, 4, 3, 3), 54)

    @pytest.mark.parametrize("name", ["conv.mask", "conv.theta", "head.bias_base"])
    def test_missing_or_of_another_shape(self, narrow: dict[str, AffineLayer], name: str) -> None:
        tensors = pack_weights(narrow)
        with pytest.raises(ArtifactError, match=f"do not fit the manifest: {name}"):
            unpack_weights({**tensors, name: tensors[name][:-1]}, layer_specs(narrow), SEED)
        del tensors[name]
        with pytest.raises(ArtifactError, match=rf"{name}: .* missing found"):
            unpack_weights(tensors, layer_specs(narrow), SEED)

    def test_mask_with_another_number_of_weights(self, narrow: dict[str, AffineLayer]) -> None:
        tensors = pack_weights(narrow)
        tensors["conv.mask"] = ~tensors["conv.mask"]
        with pytest.raises(ArtifactError, match=r"conv\.mask holds 162, not 54"):
            unpack_weights(tensors, layer_specs(narrow), SEED)

    def test_a_draw_that_fits_in_no_memory_is_refused_before_it_is_made(self, narrow: dict[str, AffineLayer]) -> None:
        huge = layer_specs(narrow)[0].model_copy(update={"drawn": (2**31, 2**31, 3, 3)})
        with pytest.raises(ArtifactError, match="do not fit the manifest"):
            unpack_weights(pack_weights(narrow), [huge], SEED)

    @pytest.mark.parametrize(
        "changes", [{"drawn": (6, 4, 3)}, {"drawn": (2, 4, 3, 3)}, {"drawn": (0, 4, 3, 3)}, {"nonzeros": 53}]
    )
    def test_a_layer_that_is_no_part_of_what_was_drawn(
        self, narrow: dict[str, AffineLayer], changes: dict[str, object]
    ) -> None:
        values = layer_specs(narrow)[0].model_dump()
        with pytest.raises(ValueError, match="validation error"):
            LayerSpec.model_validate({**values, **changes})


def test_bits_that_fill_up_the_mask_are_not_set(layers: dict[str, AffineLayer]) -> None:
    """135 weights take 17 bytes, and one bit of the last is nobody's."""
    tensors = pack_weights(layers)
    tensors["conv.mask"][-1] |= 0x80
    with pytest.raises(ArtifactError, match=r"conv\.mask holds"):
        unpack_weights(tensors, layer_specs(layers), SEED)
