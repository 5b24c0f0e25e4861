"""OAT's layers against the published network, and its encodings."""

import numpy as np
import pytest
import torch

from floats_edge.method.batchnorm import MixedBatchNorm2d
from floats_edge.method.film import EncodedLambda, Film, FilmConv, FilmNorm, OatNorm, encoding_matrix

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


def test_mixed_batchnorm_sends_the_first_images_to_clean() -> None:
    norm = MixedBatchNorm2d(3)
    x = torch.randn(6, 3, 4, 4, generator=SOME) + 5
    out = norm(x, 2)
    for part in (out[:2], out[2:]):
        torch.testing.assert_close(part.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(norm.clean.running_mean, 0.1 * x[:2].mean((0, 2, 3)))
    torch.testing.assert_close(norm.adv.running_mean, 0.1 * x[2:].mean((0, 2, 3)))


@pytest.mark.parametrize(("zeros", "idle"), [(0, "clean"), (4, "adv")])
def test_a_batch_of_one_kind_leaves_the_other_batchnorm_alone(zeros: int, idle: str) -> None:
    norm = MixedBatchNorm2d(3)
    norm(torch.randn(4, 3, 2, 2, generator=SOME) + 5, zeros)
    assert not norm.get_submodule(idle).running_mean.any()


def test_projections_have_no_film() -> None:
    assert FilmConv("dual", 4, 3, 8, 1).film is None
    assert FilmConv("dual", 4, 3, 8, 3).film is not None


@pytest.mark.parametrize("batchnorm", ["dual", "single"])
def test_layer_depends_on_lambda(batchnorm: str) -> None:
    layer = FilmConv(batchnorm, 2, 3, 8, 3).eval()
    x = torch.randn(2, 3, 4, 4, generator=SOME)
    one, other = (layer(x, EncodedLambda(torch.tensor([code]), zeros=0)) for code in ([0.0, 1.0], [1.0, 0.0]))
    assert one.shape == (2, 8, 4, 4)
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("batchnorm", ["dual", "single"])
def test_a_norm_inside_the_blocks_has_film_and_the_last_one_has_none(batchnorm: str) -> None:
    inside, last = FilmNorm(batchnorm, 2, 3).eval(), OatNorm(batchnorm, 3).eval()
    x, lam = torch.randn(4, 3, 2, 2, generator=SOME), EncodedLambda(torch.tensor([[0.0, 1.0]]), zeros=1)
    torch.testing.assert_close(last(x, lam), x, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(inside(x, lam), inside.film(last(x, lam), lam.code), rtol=1e-4, atol=1e-4)
    for norm in (inside, last):
        assert isinstance(norm.norm, MixedBatchNorm2d) == (batchnorm == "dual")


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
