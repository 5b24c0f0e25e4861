"""``floats-edge pack``: what it takes and what it says."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fixtures.commands import floats_edge
from fixtures.tiny_bundle import write_bundle

from floats_edge.cli.main import cli


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["pack", *map(str, words)])


def test_it_lists_what_was_written_and_says_what_is_next(tmp_path: Path) -> None:
    write_bundle(tmp_path / "animals", (0.3,))
    out = tmp_path / "my models"
    lines = floats_edge("pack", "triton", tmp_path / "animals", "-o", out).splitlines()
    assert lines[-2:] == [f"Packed: {out} (triton, fixed, fp32)", f"Next: tritonserver --model-repository '{out}'"]
    listed = {line.rpartition("  ")[0] for line in lines[:-2]}
    assert listed == {str(path) for path in out.rglob("*") if path.is_file() and path.name != "pack.json"}


def test_a_pack_for_deepstream(tmp_path: Path) -> None:
    write_bundle(tmp_path / "animals", (0.0, 0.5))
    out = tmp_path / "nvinfer"
    said = floats_edge("pack", "deepstream", tmp_path / "animals", "-o", out, "--frame", "1920x1080", "--batch", 2)
    assert f"Packed: {out} (deepstream, bank, fp32)" in said
    assert "batch-size=2" in (out / "config_infer_primary-lambda-0.5.txt").read_text()


def test_a_refusal_names_the_command_that_mends_it(tmp_path: Path) -> None:
    write_bundle(tmp_path / "animals", None)
    result = run("triton", tmp_path / "animals", "-o", tmp_path / "models")
    assert result.exit_code == 1
    assert f"Remedy: floats-edge export {tmp_path / 'animals'} -o BANK" in result.stderr
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize("frame", ["1920", "1920x", "x1080", "0x0", "1920x1080x3", "1e3x1e3", "99999x2"])
def test_a_frame_is_width_and_height(frame: str, tmp_path: Path) -> None:
    result = run("deepstream", tmp_path, "-o", tmp_path / "out", "--frame", frame)
    assert result.exit_code == 2
    assert "--frame" in result.stderr
