"""Which device a command opens, and in what surroundings."""

import os

import pytest
import torch
from click.testing import CliRunner

from floats_edge.cli.devices import torch_device
from floats_edge.cli.main import cli
from floats_edge.errors import BackendError


@pytest.mark.parametrize(
    ("name", "local_rank", "opened"),
    [("cuda", None, "cuda:0"), ("cuda", "1", "cuda:1"), ("cuda:2", "1", "cuda:2"), ("cpu", "1", "cpu")],
)
def test_a_worker_opens_no_gpu_but_its_own(
    name: str, local_rank: str | None, opened: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(torch, "empty", lambda *_, device: seen.append(device))
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if local_rank is not None:
        monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert torch_device(name) == name
    assert seen == [opened]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:7", "abacus"])
def test_a_device_that_is_not_there(name: str) -> None:
    with pytest.raises(BackendError, match=f"PyTorch has no device '{name}") as error:
        torch_device(name)
    assert "--device cpu" in error.value.fix


@pytest.mark.parametrize("command", ["train", "export", "verify"])
def test_idle_threads_of_every_command_sleep(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "")
    monkeypatch.delenv("OMP_WAIT_POLICY")
    CliRunner().invoke(cli, [command, "nowhere"])
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
