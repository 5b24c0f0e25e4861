import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from floats_edge.artifacts.bundle import Bundle
from floats_edge.artifacts.files import file_entry, sha256
from floats_edge.artifacts.manifest import Verdict
from floats_edge.errors import ArtifactError, OutputError, ParityError
from floats_edge.packs.deepstream import DeepStreamRequest, pack_deepstream
from floats_edge.packs.folder import PackRecord
from floats_edge.packs.triton import TritonRequest, pack_triton

HD = DeepStreamRequest(frame=(1080, 1920))


@pytest.fixture
def fixed(tiny: Callable[..., Bundle]) -> Bundle:
    return tiny("fixed")


def test_the_record_names_the_bundle_and_hashes_every_file(fixed: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "models"
    pack_triton(fixed, out, TritonRequest())
    record = PackRecord.model_validate_json((out / "pack.json").read_bytes())
    assert record.manifest_sha256 == sha256((fixed.path / "manifest.json").read_bytes())
    found = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert found == {*record.files, "pack.json"}
    assert record.files == {name: file_entry((out / name).read_bytes()) for name in record.files}


def test_a_pack_replaces_an_earlier_one_of_its_kind(fixed: Bundle, tmp_path: Path) -> None:
    pack_triton(fixed, tmp_path / "models", TritonRequest("old"))
    pack_triton(fixed, tmp_path / "models", TritonRequest("new"))
    assert not (tmp_path / "models" / "old").exists()
    assert (tmp_path / "models" / "new" / "config.pbtxt").is_file()


@pytest.mark.parametrize("foreign", ["notes.txt", "animals/2/model.onnx"])
def test_a_folder_with_files_of_others_is_never_replaced(fixed: Bundle, foreign: str, tmp_path: Path) -> None:
    out = tmp_path / "models"
    pack_triton(fixed, out, TritonRequest())
    (out / foreign).parent.mkdir(exist_ok=True)
    (out / foreign).write_text("mine")
    with pytest.raises(OutputError, match=f"holds {foreign}"):
        pack_triton(fixed, out, TritonRequest())
    assert (out / foreign).read_text() == "mine"


@pytest.mark.parametrize("there", [{"README.md": "mine"}, {"pack.json": "{}"}])
def test_a_folder_of_something_else_is_never_replaced(fixed: Bundle, there: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "models"
    out.mkdir()
    for name, text in there.items():
        (out / name).write_text(text)
    with pytest.raises(OutputError, match="replaced"):
        pack_triton(fixed, out, TritonRequest())
    assert {path.name: path.read_text() for path in out.iterdir()} == there


def test_a_bundle_does_not_become_its_own_pack(fixed: Bundle) -> None:
    with pytest.raises(OutputError, match="will not be replaced"):
        pack_triton(fixed, fixed.path, TritonRequest())
    assert fixed.read(fixed.manifest.graphs[0].file)


def test_a_graph_that_was_altered_leaves_nothing_behind(fixed: Bundle, tmp_path: Path) -> None:
    graph = fixed.path / fixed.manifest.graphs[0].file
    data = bytearray(graph.read_bytes())
    data[-1] ^= 1
    graph.write_bytes(data)
    for pack, request in ((pack_triton, TritonRequest()), (pack_deepstream, HD)):
        with pytest.raises(ArtifactError, match="sha256 differs"):
            pack(fixed, tmp_path / "out" / "pack", request)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("pack", "request_", "backends"),
    [
        (pack_triton, TritonRequest(), {"ort-cpu", "ort-cuda"}),
        (pack_triton, TritonRequest(backend="tensorrt"), {"trt"}),
        (pack_deepstream, HD, {"ort-cpu", "trt"}),
    ],
)
def test_what_failed_verify_where_it_would_run_is_refused(
    pack: Callable[..., PackRecord],
    request_: object,
    backends: set[str],
    tiny: Callable[..., Bundle],
    failed: Callable[..., Verdict],
    tmp_path: Path,
) -> None:
    for backend in sorted(backends):
        bundle = tiny("fixed", verdicts=(failed(backend, let_pass=False),))
        with pytest.raises(ParityError, match=f"failed floats-edge verify on {backend}"):
            pack(bundle, tmp_path / "out", request_)


def test_what_failed_elsewhere_is_packed(
    tiny: Callable[..., Bundle], failed: Callable[..., Verdict], tmp_path: Path
) -> None:
    bundle = tiny("fixed", verdicts=(failed("trt", let_pass=False),))
    pack_triton(bundle, tmp_path / "out", TritonRequest())
    assert (
        "`floats-edge verify` did not pass on trt (a library 1.0, 10 images)"
        in (tmp_path / "out/README.md").read_text()
    )


def test_what_was_let_pass_is_packed_and_said(
    tiny: Callable[..., Bundle], failed: Callable[..., Verdict], tmp_path: Path
) -> None:
    bundle = tiny("fixed", verdicts=(failed("ort-cpu", let_pass=True),), mismatch="fp32 was off.")
    record = pack_triton(bundle, tmp_path / "out", TritonRequest())
    assert record.let_pass == ("fp32 was off.", "ort-cpu: the logits differ.")
    assert "let pass with --allow-mismatch: fp32 was off." in (tmp_path / "out/README.md").read_text()


def test_the_name_is_that_of_the_folder_made_plain(fixed: Bundle, tmp_path: Path) -> None:
    odd = Bundle(shutil.copytree(fixed.path, tmp_path / "my animals (1)"), fixed.manifest)
    pack_triton(odd, tmp_path / "out", TritonRequest())
    assert (tmp_path / "out" / "my-animals-1" / "config.pbtxt").is_file()


@pytest.mark.parametrize("name", ["../out", "a/b", "", "a b", ".hidden", "é"])
def test_a_name_that_is_none_is_refused(name: str, fixed: Bundle, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot name a model"):
        pack_triton(fixed, tmp_path / "out", TritonRequest(name))
