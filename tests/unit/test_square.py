"""The Square attack sees logits only."""

import torch

from floats_edge.attacks import square

EPSILON = 0.1


def linear_network(images: torch.Tensor) -> torch.Tensor:
    """Two classes: brighter than grey, or not. An attack must darken (class 0) or brighten (class 1) the image."""
    brightness = images.mean(dim=(1, 2, 3)) - 0.5
    return torch.stack((brightness, -brightness), dim=1).detach()


def grey(*levels: float) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.stack([torch.full((3, 8, 8), level) for level in levels])
    return images, (images.mean(dim=(1, 2, 3)) < 0.5).long()


def attack(images, labels, queries=300, seed=0):
    return square(linear_network, images, labels, torch.Generator().manual_seed(seed), EPSILON, queries)


def test_it_fools_what_epsilon_can_fool_and_nothing_else():
    images, labels = grey(0.55, 0.45, 0.7, 0.3)
    wrong = linear_network(attack(images, labels)).argmax(1) != labels
    assert wrong.tolist() == [True, True, False, False]


def test_it_stays_in_the_ball_and_in_the_range_of_pixels():
    images, labels = grey(0.02, 0.97, 0.6)
    attacked = attack(images, labels)
    assert attacked.shape == images.shape
    assert (attacked - images).abs().max() <= EPSILON + 1e-6
    assert attacked.min() >= 0
    assert attacked.max() <= 1


def test_more_queries_get_closer():
    images, labels = grey(0.7)
    lead = [linear_network(attack(images, labels, queries))[0].max().item() for queries in (1, 20, 300)]
    assert lead[0] > lead[1] > lead[2]


def test_the_same_seed_gives_the_same_images_and_leaves_the_originals_alone():
    images, labels = grey(0.55, 0.3)
    kept = images.clone()
    assert torch.equal(attack(images, labels, seed=3), attack(images, labels, seed=3))
    assert not torch.equal(attack(images, labels, seed=3), attack(images, labels, seed=4))
    assert torch.equal(images, kept)


def test_images_that_are_fooled_are_asked_no_more():
    asked = []

    def network(images):
        asked.append(len(images))
        return linear_network(images)

    images, labels = grey(0.51, 0.9)
    square(network, images, labels, torch.Generator().manual_seed(0), EPSILON, 100)
    assert asked[0] == 2
    assert asked[-1] == 1
