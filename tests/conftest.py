"""Fixtures that several parts of the suite share."""

import functools
import hashlib
import importlib
import os
import signal
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from floats_edge.artifacts.bundle import Bundle
    from floats_edge.artifacts.checkpoint import TrainingRun
    from floats_edge.data import Splits
    from floats_edge.deploy.lambda_graph import Network
    from floats_edge.recipe import Recipe
    from floats_edge.training.loop import Observer

settings.register_profile("any machine", deadline=None)  # how long an example takes is no property of the program
settings.load_profile("any machine")

REPOSITORY = Path(__file__).resolve().parents[1]
FAKE_GPU = Path(__file__).parent / "fixtures" / "fake_gpu"
CIFAR_ZIP = REPOSITORY.parent / "shared" / "data" / "cifar10-subset.zip"


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads what an earlier run of the suite, or the user, has cached."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user that the system does not know, as in a container that runs under any number."""
    for name in ("XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C and a closed terminal end what a test starts, and Ctrl-C this process, also where both are ignored.

    Processes inherit that: ``nohup ./tools/test &``.
    """
    inherited = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    yield
    for number, handler in inherited.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def cifar_folder() -> Path:
    """Real CIFAR-10 images as an image folder: 20,000 in train/, 4,000 in test/, sorted by class.

    The archive is unpacked once, into a cache outside the tree whose name holds the archive's hash.
    """
    archive = Path(os.environ.get("FLOATS_EDGE_CIFAR", CIFAR_ZIP))
    if not archive.is_file():
        pytest.skip(f"no CIFAR-10 images: {archive} is not there (set FLOATS_EDGE_CIFAR to a cifar10-subset.zip)")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()[:12]
    folder = Path.home() / ".cache" / "floats-edge" / f"cifar10-subset-{digest}"
    if not folder.is_dir():
        _unzip(archive, folder)
    return folder


def _unzip(archive: Path, folder: Path) -> None:
    """Unpack the one folder inside ``archive`` as ``folder``: whole or not at all, also when workers race for it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as staging, zipfile.ZipFile(archive) as contents:
        contents.extractall(staging)
        (unpacked,) = Path(staging).iterdir()
        try:
            unpacked.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise


QUICK = (
    "train.epochs=2",
    "train.batch_size=16",
    "train.lr=0.05",
    "data.preprocessing.size=8",
    "data.crop=0",
    "model.arguments.width=8",
    "evaluate.images=100",
    "evaluate.attack.steps=5",
)
"""Overrides that make the quickstart recipe train in seconds to about 90 % clean accuracy; its density stays 0.3."""


@pytest.fixture(scope="session")
def digits_recipe() -> "Recipe":
    """The recipe of ``digits_run``."""
    from floats_edge.recipe_file import load_recipe

    return load_recipe("quickstart", QUICK)


@pytest.fixture(scope="session")
def one_thread() -> None:
    """One thread for torch: pytest-xdist gives every core a worker, and bits depend on the number of threads."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits(digits_recipe: "Recipe", one_thread: None) -> "Splits":
    """The images of ``digits_run``."""
    from floats_edge.data import load_data

    return load_data(digits_recipe.data, digits_recipe.seed)


@pytest.fixture(scope="session")
def few(digits: "Splits") -> "Splits":
    """Five steps an epoch of digits."""
    return replace(digits, train=digits.train.first(80), validation=digits.validation.first(40))


@pytest.fixture(scope="session")
def silent() -> "Observer":
    """Who watches a training run in silence."""
    from floats_edge.training.stage import Unwatched

    return Unwatched()


@pytest.fixture(scope="session")
def digits_run(
    digits_recipe: "Recipe", digits: "Splits", silent: "Observer", tmp_path_factory: pytest.TempPathFactory
) -> "TrainingRun":
    """A sparse run on digits; copy its folder before changing anything in it."""
    from floats_edge.training.loop import train

    return train(digits_recipe, digits, tmp_path_factory.mktemp("run") / "run", silent)


@pytest.fixture(scope="session")
def bundles(digits_run: "TrainingRun", tmp_path_factory: pytest.TempPathFactory) -> "Callable[..., Bundle]":
    """``bundles(mode, precision="fp32")``: an export of ``digits_run``, made once; copy its folder before changing it.

    ``fixed`` serves lambda 0.3, ``bank`` 0 and 1. Only ``bound`` in fp32 comes from the run, the others come from it.
    """
    from floats_edge.deploy.export import ExportRequest, export

    folder = tmp_path_factory.mktemp("bundles")
    lambdas = {"bound": "runtime", "fixed": (0.3,), "bank": (0.0, 1.0)}

    @functools.cache
    def made(mode: str, precision: str = "fp32") -> "Bundle":
        source = digits_run.path if (mode, precision) == ("bound", "fp32") else made("bound", "fp32").path
        return export(source, folder / f"{mode}-{precision}", ExportRequest(lambdas[mode], precision))

    return made


@pytest.fixture(scope="session")
def float_network(bundles: "Callable[..., Bundle]", digits_run: "TrainingRun") -> "Network":
    """The network of ``digits_run`` as graphs are made from it; what a test changes it must change back."""
    import onnx

    from floats_edge.deploy.lambda_graph import Network
    from floats_edge.runtime.torch import folded_network

    template = onnx.load_model_from_string(bundles("bound").read("model.onnx"))
    return Network(template, folded_network(digits_run).layers)


@pytest.fixture
def fake_driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A GPU that is none: stand-ins of ``pycuda.driver`` and ``tensorrt`` for who imports them.

    A test must free all that it allocates.
    """

    def stand_ins() -> list[str]:
        return [name for name in sys.modules if name.partition(".")[0] in ("tensorrt", "pycuda")]

    for name in stand_ins():
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(FAKE_GPU))
    driver = importlib.import_module("pycuda.driver")
    yield driver
    assert driver.live == {}
    assert driver.pinned == {}
    assert driver.contexts == []
    monkeypatch.undo()  # it may hold stand-ins that the test hid
    for name in stand_ins():
        if str(FAKE_GPU) in (getattr(sys.modules[name], "__file__", None) or ""):
            sys.modules.pop(name)
