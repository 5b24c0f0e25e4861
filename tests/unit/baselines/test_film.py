"""OAT's layers against the published network, and its encodings."""

import numpy as np
import pytest
import torch
from torch import nn

from floats_edge.baselines.film import EncodedLambda, Film, FilmNorm, Told, encoding_matrix

SOME = torch.Generator().manual_seed(0)


def test_film_is_the_published_perceptron() -> None:
    """Two layers of leaky ReLUs, whose first half of outputs scales and whose second half shifts."""
    film = Film(3, 5)
    code, x = torch.randn(2, 5, generator=SOME), torch.randn(2, 3, 4, 4, generator=SOME)
    hidden = torch.nn.functional.leaky_relu(code @ film.hidden.weight.T + film.hidden.bias)
    out = torch.nn.functional.leaky_relu(hidden @ film.output.weight.T + film.output.bias)
    torch.testing.assert_close(film(x, code), x * out[:, :3, None, None] + out[:, 3:, None, None])


def test_one_code_serves_a_whole_batch() -> None:
    film = Film(3, 5)
    code, x = torch.randn(1, 5, generator=SOME), torch.randn(4, 3, 2, 2, generator=SOME)
    torch.testing.assert_close(film(x, code), film(x, code.expand(4, 5)))


def film_norm(zeros: int, code: tuple[float, float] = (0.0, 1.0), dual: bool = True, film: bool = False) -> FilmNorm:
    """Of 3 channels, told a batch whose first ``zeros`` images have lambda 0."""
    torch.manual_seed(0)
    told = Told()
    told.lam = EncodedLambda(torch.tensor([code]), zeros)
    return FilmNorm(nn.BatchNorm2d(3), 3, dual, 2 if film else None, told)


def test_a_dual_batchnorm_sends_the_first_images_to_clean() -> None:
    layer = film_norm(zeros=2)
    x = torch.randn(6, 3, 4, 4, generator=SOME) + 5
    out = layer(x)
    for part in (out[:2], out[2:]):
        torch.testing.assert_close(part.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(layer.norm.clean.running_mean, 0.1 * x[:2].mean((0, 2, 3)))
    torch.testing.assert_close(layer.norm.adv.running_mean, 0.1 * x[2:].mean((0, 2, 3)))


@pytest.mark.parametrize(("zeros", "idle"), [(0, "clean"), (4, "adv")])
def test_a_batch_of_one_kind_leaves_the_other_batchnorm_alone(zeros: int, idle: str) -> None:
    layer = film_norm(zeros)
    layer(torch.randn(4, 3, 2, 2, generator=SOME) + 5)
    assert not layer.norm.get_submodule(idle).running_mean.any()


def test_a_single_batchnorm_normalises_all_images_together() -> None:
    layer = film_norm(zeros=2, dual=False)
    assert type(layer.norm) is nn.BatchNorm2d
    x = torch.randn(6, 3, 4, 4, generator=SOME) + 5
    torch.testing.assert_close(layer(x).mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("dual", [True, False])
def test_film_makes_it_depend_on_the_code(dual: bool) -> None:
    x = torch.randn(2, 3, 4, 4, generator=SOME)
    codes = ((0.0, 1.0), (1.0, 0.0))
    one, other = (film_norm(0, code, dual, film=True).eval()(x) for code in codes)
    assert (one - other).abs().max() > 1e-3
    one, other = (film_norm(0, code, dual).eval()(x) for code in codes)
    assert torch.equal(one, other)


def test_random_orthogonal_rows() -> None:
    matrix = encoding_matrix("random-orthogonal", 16, seed=3)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(16), atol=1e-5, rtol=0)
    assert torch.equal(matrix, encoding_matrix("random-orthogonal", 16, seed=3))
    assert not torch.equal(matrix, encoding_matrix("random-orthogonal", 16, seed=4))


def test_dct_rows_are_those_of_scipy() -> None:
    fft = pytest.importorskip("scipy.fft")
    np.testing.assert_allclose(encoding_matrix("dct", 8, 0).numpy(), fft.dct(np.eye(8), axis=0), atol=1e-6)


def test_onehot_rows() -> None:
    assert torch.equal(encoding_matrix("onehot", 4, 0), torch.eye(4))
