"""Mixup and CutMix: which pixels and targets come out, the same bits whoever reads, and that every method learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures.training import DENSE, OAT, StopAfterAnEpoch, streamed, trainer
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import cross_entropy

from floats_edge.attacks import pgd
from floats_edge.data import Splits
from floats_edge.errors import RecipeError
from floats_edge.recipe import Data, Recipe
from floats_edge.recipe_file import override_recipe
from floats_edge.training import steps
from floats_edge.training.distributed import ALONE, Workers
from floats_edge.training.feed import Batch, Feed
from floats_edge.training.loop import Observer, train
from floats_edge.training.losses import CrossEntropy
from floats_edge.training.mixing import Mixing, make_mixing

BOTH = ("data.mixup=0.2", "data.cutmix=1", "data.flip=true")
OPTIONS = {
    "float": (*DENSE, *BOTH),
    "resample": (*DENSE, *BOTH, "condition.noise=resample", "train.balance=sampler"),
    "oat": (*OAT, *BOTH),
    "pgd-at": (*DENSE, *BOTH, "method=pgd-at", "train.balance=weights"),
    "trades": (*DENSE, *BOTH, "method=trades", "train.balance=weights", "train.label_smoothing=0.1"),
    "standard": (*DENSE, *BOTH, "method=standard"),
}


def feed(splits: Splits, mixup: float, cutmix: float, workers: Workers = ALONE) -> Feed:
    data = Data(flip=True, mixup=mixup, cutmix=cutmix)
    cpu = torch.device("cpu")
    return Feed(splits.train, data, 16, 0, cpu, workers, mixing=make_mixing(data, len(splits.labels)))


def partners(batch: Tensor) -> Tensor:
    """Of a batch of 16: who stands four places further on or before, in the same half."""
    return batch[[4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11]]


def share_of(targets: Tensor, labels: Tensor) -> float:
    """Of the images' own in all of a batch's targets, which are checked."""
    own, other = torch.eye(10)[labels], torch.eye(10)[partners(labels)]
    apart = labels != partners(labels)
    share = targets[apart].gather(1, labels[apart].view(-1, 1)).mean()
    torch.testing.assert_close(targets, share * own + (1 - share) * other)
    torch.testing.assert_close(targets.sum(1), torch.ones(16))
    return share.item()


def pairs(few: Splits, mixup: float, cutmix: float) -> list[tuple[Batch, Batch]]:
    """The batches of eight epochs without mixing, and with it."""
    plain, mixed = feed(few, 0, 0), feed(few, mixup, cutmix)
    return [pair for epoch in range(8) for pair in zip(plain.batches(epoch), mixed.batches(epoch), strict=True)]


def test_mixup_blends_images_and_their_classes(few: Splits) -> None:
    shares = []
    for (images, labels), (mixed, targets) in pairs(few, 0.2, 0):
        shares.append(share_of(targets, labels))
        torch.testing.assert_close(mixed, shares[-1] * images + (1 - shares[-1]) * partners(images), atol=1e-5, rtol=0)
        assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert len(set(shares)) == 40
    assert np.mean([min(share, 1 - share) < 0.1 for share in shares]) > 0.4, "Beta(0.2, 0.2) lies at the ends"


def test_cutmix_pastes_a_box_and_counts_its_area(few: Splits) -> None:
    shares = []
    for (images, labels), (mixed, targets) in pairs(few, 0, 1):
        shares.append(share_of(targets, labels))
        differ = (images != partners(images)).any(0)[0]  # of a pixel that is alike in all images nobody can tell
        pasted = (mixed != images).any(0)[0]
        rows, columns = pasted.any(1).nonzero(), pasted.any(0).nonzero()
        box = torch.zeros(8, 8, dtype=torch.bool)
        if len(rows):
            box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
        assert torch.equal(pasted, box & differ)
        assert torch.equal(mixed, torch.where(box, partners(images), images))
        if differ.all():
            assert shares[-1] == pytest.approx(1 - box.float().mean().item(), abs=1e-6)
    assert len(set(shares)) > 8


@given(seed=st.integers(0, 2**32), height=st.integers(1, 40), width=st.integers(1, 40), parameter=st.floats(0.05, 8))
def test_what_a_box_leaves_is_counted_pixel_by_pixel(seed: int, height: int, width: int, parameter: float) -> None:
    images = torch.tensor([0.0, 1.0, 0.0, 1.0]).view(4, 1, 1, 1).repeat(1, 1, height, width)
    labels = torch.tensor([0, 1, 0, 1])
    mixed, targets = Mixing(0, parameter, 2).mixed(images, labels, np.random.default_rng(seed))
    torch.testing.assert_close(mixed.mean((1, 2, 3)), targets[:, 1])
    torch.testing.assert_close(targets[0], targets[1].flip(0))


def test_a_box_takes_what_is_drawn_unless_an_edge_cuts_it() -> None:
    """Beta(10^6, 10^6) gives halves."""
    mixing, labels = Mixing(0, 1e6, 2), torch.tensor([0, 1, 0, 1])
    pasted = [
        mixing.mixed(torch.zeros(4, 1, 60, 90), labels, np.random.default_rng(seed))[1][0, 1].item()
        for seed in range(200)
    ]
    assert 0.48 < max(pasted) < 0.501
    assert min(pasted) < 0.25


def test_each_batch_is_mixed_in_one_way_and_both_ways_come(few: Splits) -> None:
    blended = 0
    for (images, labels), (mixed, targets) in pairs(few, 1, 1):
        share_of(targets, labels)
        kept = (mixed == images) | (mixed == partners(images))
        blended += not kept.all()
    assert 10 < blended < 30


@pytest.mark.parametrize("loaders", [0, 2])
def test_images_that_are_read_anew_give_the_same_bits(few: Splits, loaders: int) -> None:
    kept, anew = feed(few, 0.2, 1), feed(streamed(few, loaders), 0.2, 1)
    for epoch in (1, 0):
        for one, other in zip(kept.batches(epoch), anew.batches(epoch), strict=True):
            assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("size", [2, 4])
def test_a_worker_gets_its_share_of_the_mixed_batch(few: Splits, size: int) -> None:
    for rank in range(size):
        mine = feed(few, 0.2, 1, Workers(rank, size)).batches(0)
        for one, whole in zip(mine, feed(few, 0.2, 1).batches(0), strict=True):
            assert all(torch.equal(part, all_of_it[rank::size]) for part, all_of_it in zip(one, whole, strict=True))


@pytest.mark.parametrize("method", ["float", "standard"])
def test_workers_need_whole_pairs(method: str, digits_recipe: Recipe) -> None:
    odd, even = (override_recipe(digits_recipe, (*OPTIONS[method], f"train.batch_size={n}")) for n in (20, 24))
    ALONE.check_recipe(odd)
    Workers(0, 2).check_recipe(even)
    with pytest.raises(RecipeError, match="2 workers cannot share each quarter of a batch of 20 images equally"):
        Workers(0, 2).check_recipe(odd)


@pytest.mark.parametrize("key", ["mixup", "cutmix"])
def test_a_negative_parameter_is_refused(key: str) -> None:
    with pytest.raises(ValidationError, match=key):
        Data.model_validate({key: -0.2})


@pytest.mark.parametrize("name", OPTIONS)
def test_it_learns_and_resumes_bit_for_bit(
    name: str, digits_recipe: Recipe, digits: Splits, silent: Observer, tmp_path: Path
) -> None:
    recipe = override_recipe(digits_recipe, OPTIONS[name])
    few = replace(digits, train=digits.train.first(640))
    whole = train(recipe, few, tmp_path / "whole", silent)
    assert whole.checkpoint.history[-1].clean_accuracy > 30  # chance gives 10
    with pytest.raises(KeyboardInterrupt):
        train(recipe, streamed(few, 2), tmp_path / "stopped", StopAfterAnEpoch())
    stopped = train(recipe, few, tmp_path / "stopped", silent, resume=True)
    for one, other in ((whole.weights(), stopped.weights()), (whole.state(), stopped.state())):
        assert all(one[key].tobytes() == other[key].tobytes() for key in one)


@pytest.mark.parametrize("name", ["float", "oat", "pgd-at"])
def test_the_attack_is_on_the_mixed_targets(
    name: str, digits_recipe: Recipe, few: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def attack_seen(network: object, images: Tensor, labels: Tensor, *rest: object, **config: object) -> Tensor:
        seen.append(labels)
        return images

    monkeypatch.setattr(steps, "attack", attack_seen)
    subject = trainer(digits_recipe, few, *OPTIONS[name])
    images, targets = next(subject.feed.batches(0))
    subject.step.losses(images, targets, subject.attack, torch.Generator().manual_seed(0))
    attacked = {"float": 8, "oat": 13, "pgd-at": 16}[name]
    assert torch.equal(seen[0], targets[-attacked:])
    assert (targets.amax(1) < 1).any()


def linear(images: Tensor) -> Tensor:
    weights = torch.randn(48, 3, generator=torch.Generator().manual_seed(1))
    return images.flatten(1) @ weights


@pytest.mark.parametrize("restarts", [1, 3])
def test_an_attack_raises_the_loss_on_mixed_targets(restarts: int) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(20, 3, 4, 4, generator=generator)
    targets = torch.rand(20, 3, generator=generator).softmax(1)
    adversarial = pgd(linear, images, targets, generator, 0.1, 0.05, steps=4, restarts=restarts)
    assert (adversarial - images).abs().max() <= 0.1 + 1e-6
    before, after = (cross_entropy(linear(batch), targets, reduction="none") for batch in (images, adversarial))
    assert (after > before).all()


def test_targets_that_hold_one_class_are_attacked_as_labels_are() -> None:
    images = torch.rand(20, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(20) % 3
    hard, soft = (
        pgd(linear, images, truth, torch.Generator().manual_seed(3), 0.05, 0.02, 3, restarts=4)
        for truth in (labels, torch.eye(3)[labels])
    )
    torch.testing.assert_close(soft, hard)


def test_weights_apply_to_each_class_in_a_target() -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    first, second = torch.tensor([0, 1, 2, 0, 1, 2]), torch.tensor([1, 1, 0, 2, 0, 2])
    loss = CrossEntropy(torch.tensor([3.0, 1.0, 0.25]))
    mixed = 0.3 * torch.eye(3)[first] + 0.7 * torch.eye(3)[second]
    expected = 0.3 * loss.each(logits, first) + 0.7 * loss.each(logits, second)
    torch.testing.assert_close(loss.each(logits, mixed), expected)
    torch.testing.assert_close(loss.mean(logits, mixed), expected.mean())
