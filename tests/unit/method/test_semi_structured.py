"""The 2:4 pattern: what a group is, and that moving masks never breaks it."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from floats_edge.method import semi_structured
from floats_edge.method.masks import MaskedLayer
from floats_edge.method.semi_structured import is_two_of_four, random_mask, swap_within_groups

SHAPES = st.sampled_from([(3, 4), (8, 16), (4, 8, 3, 3), (5, 12, 1, 1), (2, 4, 2, 3)])


def layer(shape: tuple[int, ...], seed: int) -> MaskedLayer:
    generator = torch.Generator().manual_seed(seed)
    mask = random_mask(shape, generator)
    theta = torch.randn(shape, generator=generator) * mask
    return MaskedLayer(theta, mask, torch.rand(shape, generator=generator))


def test_a_group_is_four_consecutive_input_channels() -> None:
    weight = torch.zeros(1, 8, 3, 3)
    weight[0, 2:4] = 1
    assert is_two_of_four(weight)
    weight[0, 4:6] = 1
    assert is_two_of_four(weight), "the next group has two of its own"
    weight[0, 0, 1, 1] = 1
    assert not is_two_of_four(weight)


def test_groups_and_back() -> None:
    weight = torch.arange(2 * 8 * 3 * 3).view(2, 8, 3, 3)
    grouped = semi_structured.groups(weight)
    assert grouped.shape == (2, 3, 3, 2, 4)
    assert grouped[1, 2, 0, 1].tolist() == weight[1, 4:8, 2, 0].tolist()
    assert torch.equal(semi_structured.ungrouped(grouped, (2, 8, 3, 3)), weight)


@given(SHAPES, st.integers(0, 99))
@settings(max_examples=20)
def test_random_mask_keeps_two_of_every_four(shape: tuple[int, ...], seed: int) -> None:
    mask = random_mask(shape, torch.Generator().manual_seed(seed))
    assert mask.shape == shape
    assert (semi_structured.groups(mask).sum(-1) == 2).all()


def test_all_pairs_of_a_group_occur() -> None:
    mask = random_mask((64, 16), torch.Generator().manual_seed(0))
    pairs = {tuple(row) for row in semi_structured.groups(mask).flatten(0, -2).int().tolist()}
    assert len(pairs) == 6


def test_layers_that_do_not_divide_stay_dense() -> None:
    assert random_mask((8, 6, 3, 3), torch.Generator()).all()
    dense = MaskedLayer(torch.ones(8, 6), torch.ones(8, 6, dtype=torch.bool), torch.ones(8, 6))
    assert swap_within_groups({"odd": dense}, 0.3) == {}


@given(SHAPES, st.integers(0, 99), st.floats(0, 0.9))
@settings(max_examples=40)
def test_swaps_keep_the_pattern(shape: tuple[int, ...], seed: int, fraction: float) -> None:
    before = layer(shape, seed)
    moved = swap_within_groups({"x": before}, fraction)
    swaps = min(int(fraction * int(before.mask.sum())), before.mask.numel() // 4)
    if swaps == 0:
        assert moved == {}
        return
    mask = moved["x"]
    assert (semi_structured.groups(mask).sum(-1) == 2).all()
    assert int((mask & ~before.mask).sum()) == int((before.mask & ~mask).sum()) == swaps
    for was, now, theta, gradient in zip(
        *(semi_structured.groups(t).flatten(0, -2) for t in (before.mask, mask, before.theta, before.gradient)),
        strict=True,
    ):
        if not torch.equal(was, now):
            assert theta[was & ~now].abs() == theta[was].abs().min(), "the weakest of the group goes"
            assert gradient[now & ~was] == gradient[~was].max(), "the most wanted of the group comes"


def test_weakest_groups_swap_first() -> None:
    before = layer((16, 16), 1)
    mask = swap_within_groups({"x": before}, 0.2)["x"]
    weakest = semi_structured.groups(before.theta.abs().masked_fill(~before.mask, torch.inf)).flatten(0, -2).amin(-1)
    moved = (semi_structured.groups(mask) != semi_structured.groups(before.mask)).flatten(0, -2).any(-1)
    assert weakest[moved].max() <= weakest[~moved].min()
