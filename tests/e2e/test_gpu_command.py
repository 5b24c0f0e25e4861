"""``tools/gpu``: what it does with parts that hang, crash or are interrupted, and what it tells of this machine."""

import importlib.util
import json
import re
import signal
import subprocess
import sys
import time
import zipfile
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, SimpleNamespace

import psutil
import pytest
from fixtures.records import comparison
from gpu_check.page import ROWS, page, tried, update_readme
from gpu_check.tests import _Reports
from gpu_check.told import Told

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = REPOSITORY / "tools" / "gpu"
TELL = """
import json, os, subprocess, sys, time
def tell(kind, value):
    with open(sys.argv[1], "a") as file:
        file.write(json.dumps([kind, value]) + "\\n")
def find(what, verdict="passed", why="because", path=None):
    tell("findings", dict(what=what, verdict=verdict, value=None, unit="", n=None, why=why, path=path))
"""


def load() -> ModuleType:
    loader = SourceFileLoader("gpu_command", str(COMMAND))
    spec = importlib.util.spec_from_loader("gpu_command", loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_command"] = module  # dataclasses look there
    loader.exec_module(module)
    return module


@pytest.fixture
def run(monkeypatch, tmp_path):
    """``run(name=program, ...)``: the command with these parts, each a real process with 3 seconds; its JSON."""

    def made(**programs: str) -> dict:
        gpu = load()
        parts = tuple(gpu.Part(name, f"The part {name}", 3, 3) for name in programs)
        monkeypatch.setattr(gpu, "PARTS", parts)
        monkeypatch.setattr(
            gpu, "command", lambda part, found: [sys.executable, "-c", TELL + programs[part.name], str(found)]
        )
        monkeypatch.setattr(sys, "argv", ["gpu", "--out", str(tmp_path / "out")])
        assert gpu.main() == 0
        return json.loads((tmp_path / "out" / "gpu.json").read_text())

    return made


def by_name(result: dict) -> dict[str, dict]:
    return {part["name"]: part for part in result["parts"]}


def test_a_part_that_hangs_is_ended_with_what_it_started_and_the_next_one_runs(run):
    hangs = """
child = subprocess.Popen(["sleep", "1000"])
find("one")
tell("doing", f"waiting for {child.pid}")
time.sleep(1000)
"""
    parts = by_name(run(hangs=hangs, next="find('two')"))
    assert parts["hangs"]["state"] == "ended"
    assert "still ran after 3 s (while: waiting for " in parts["hangs"]["reason"]
    assert [finding["what"] for finding in parts["hangs"]["findings"]] == ["one"]
    child = int(parts["hangs"]["reason"].rpartition(" ")[2].rstrip(")"))
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    assert parts["next"]["state"] == "ran"


def test_what_a_part_found_is_written_before_the_next_one_starts(run):
    reads = """
from pathlib import Path
saved = json.loads((Path(sys.argv[1]).parents[1] / "gpu.json").read_text())
find(saved["parts"][0]["findings"][0]["what"], why=saved["incomplete"])
"""
    (found,) = by_name(run(first="find('one')", second=reads))["second"]["findings"]
    assert (found["what"], found["why"]) == ("one", "still running")


def test_a_part_that_does_not_heed_sigterm_is_killed(run, monkeypatch):
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); find('one'); time.sleep(1000)"
    started = time.monotonic()
    assert by_name(run(stubborn=stubborn))["stubborn"]["state"] == "ended"
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("crash", "said"),
    [("os.abort()", "SIGABRT"), ("raise ValueError('of all things')", "ValueError: of all things")],
)
def test_a_part_that_crashes_is_told_with_its_last_words(run, tmp_path, crash, said):
    parts = by_name(run(crashes=f"find('one')\ntell('doing', 'the third step')\n{crash}", next="find('two')"))
    assert parts["crashes"]["state"] == "failed"
    assert said in parts["crashes"]["reason"]
    assert "while: the third step" in parts["crashes"]["reason"]
    assert [finding["what"] for finding in parts["crashes"]["findings"]] == ["one"]
    assert parts["next"]["state"] == "ran"
    assert said in (tmp_path / "out" / "gpu.html").read_text()


def test_what_this_machine_lacks_is_told_as_the_part_said_it(run):
    parts = by_name(run(lacks="tell('cannot run', 'no <such> thing'); sys.exit(3)", skips="find('x', 'skipped')"))
    assert (parts["lacks"]["state"], parts["lacks"]["reason"]) == ("cannot run", "no <such> thing")
    assert parts["skips"]["state"] == "cannot run"


def test_the_time_of_quick_is_shared(monkeypatch, tmp_path):
    gpu = load()
    monkeypatch.setattr(gpu, "PARTS", (gpu.Part("one", "One", 9, 9), gpu.Part("two", "Two", 9, 9)))
    monkeypatch.setattr(gpu, "QUICK_S", 1.0)
    monkeypatch.setattr(gpu, "command", lambda part, found: [sys.executable, "-c", "import time; time.sleep(9)"])
    monkeypatch.setattr(sys, "argv", ["gpu", "--quick", "--out", str(tmp_path)])
    assert gpu.main() == 0
    parts = by_name(json.loads((tmp_path / "gpu.json").read_text()))
    assert (parts["one"]["state"], parts["two"]["state"]) == ("ended", "not started")
    assert "--quick were over" in parts["two"]["reason"]


def test_limits_of_quick_leave_time_for_every_part():
    gpu = load()
    assert sum(part.quick_s for part in gpu.PARTS) <= gpu.QUICK_S < 8 * 60
    assert {part.name for part in gpu.PARTS} >= {f"tests/{file.name}" for file in REPOSITORY.glob("tests/gpu/test_*")}


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_keeps_what_was_found(tmp_path):
    program = f"""
import sys
sys.path[:0] = [{", ".join(repr(str(REPOSITORY / place)) for place in ("tests/e2e", "tests", "tools"))}]
from test_gpu_command import TELL, load
gpu = load()
gpu.PARTS = (gpu.Part("first", "First", 99, 99), gpu.Part("long", "Long", 99, 99), gpu.Part("last", "Last", 99, 99))
gpu.command = lambda part, found: [sys.executable, "-c",
    TELL + f"find({{part.name!r}}); time.sleep(1000 * ({{part.name!r}} == 'long'))", str(found)]
sys.argv = ["gpu", "--out", {str(tmp_path)!r}]
sys.exit(gpu.main())
"""
    process = subprocess.Popen([sys.executable, "-c", program])
    found = tmp_path / "parts" / "long.jsonl"
    for _ in range(600):
        if found.exists():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert result["incomplete"] == "interrupted"
    states = {name: (part["state"], len(part["findings"])) for name, part in by_name(result).items()}
    assert states == {"first": ("ran", 1), "long": ("ended", 1), "last": ("not started", 0)}
    assert "This is not all: interrupted." in (tmp_path / "gpu.html").read_text()


def test_without_a_gpu_the_page_says_what_could_not_be_tried_and_why(tmp_path):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = subprocess.run([COMMAND, "--quick", "--out", tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "gpu.json").read_text())
    text = (tmp_path / "gpu.html").read_text()
    assert (result["card"], result["incomplete"], result["schema_version"]) == (None, None, 1)
    assert "No GPU was found" in text
    parts = by_name(result)
    assert {name for name, part in parts.items() if part["state"] == "ran"} == {"machine", "engines"}
    for part in parts.values():
        assert part["state"] in ("ran", "cannot run")
        assert part["reason"] or part["state"] == "ran"
        assert all(finding["why"] for finding in part["findings"])
        assert not any(finding["verdict"] == "failed" for finding in part["findings"]), part
    assert all("NVIDIA driver" in parts[name]["reason"] for name in ("training", "energy", "zeros", "speed", "kit"))
    assert "ort-cuda" in {finding["what"] for finding in parts["engines"]["findings"]}
    proof = {finding["what"]: finding["verdict"] for finding in parts["engines"]["findings"]}
    assert proof["bound fp32 on ort-cpu: verify"] == "passed"
    assert [tried(result, row) for row in ROWS] == [None] * len(ROWS)
    before = (REPOSITORY / "README.md").read_bytes()
    subprocess.run([COMMAND, "--readme", tmp_path / "gpu.json"], check=True, capture_output=True)
    assert (REPOSITORY / "README.md").read_bytes() == before


# The record, the page and README


def finding(what: str, verdict: str, path: str | None = None, **more: object) -> dict:
    return {"what": what, "verdict": verdict, "value": None, "unit": "", "n": None, "why": "why", "path": path, **more}


def record(*findings: dict, card: str | None = "NVIDIA H100, sm_90") -> dict:
    gpu = load()
    part = gpu.not_started(gpu.Part("one", "One", 1, 1)) | {"state": "ran", "findings": list(findings)}
    return {
        "kind": "gpu-check",
        "schema_version": 1,
        "started": "2026-11-30T10:00:00+00:00",
        "quick": True,
        "python": "3.12.1",
        "commit": None,
        "wheels": None,
        "missing": [],
        "card": card,
        "seconds": 1.0,
        "incomplete": None,
        "parts": [part],
    }


def test_the_record_has_these_keys(run):
    assert run(one="find('one')").keys() == record().keys()


def test_the_page_shows_figures_with_conditions_failures_first_and_one_row_for_one_reason():
    skipped = [finding(f"skipped {number}", "skipped", why="no <card>") for number in range(3)]
    figure = finding("latency", "measured", value=0.5, unit="ms", n=50, why="batch 1")
    text = page(record(*skipped, figure, finding("a broken engine", "failed")))
    assert text.index("a broken engine") < text.index("skipped 0")
    assert "skipped 0 and 2 more" in text
    assert "no &lt;card&gt;" in text
    assert all(part in text for part in ("What works on NVIDIA H100, sm_90", "0.500 ms", "batch 1"))


def test_a_part_that_came_to_no_check_shows_no_counts():
    result = record(finding("x", "skipped"))
    result["parts"].append({**result["parts"][0], "title": "Another", "state": "cannot run", "findings": []})
    text = " ".join(re.sub("<[^>]+>", " ", page(result)).split())
    assert "checks not tried 1 of parts that began" in text
    assert "One ran 0 0 1 0 unknown Another cannot run 0 unknown" in text


def test_the_page_says_of_a_comparison_what_its_interval_says():
    for high, said in ((0.85, "faster"), (1.2, "not told apart")):
        ratios = (comparison().ratios[0].model_copy(update={"high": high}),)
        result = record()
        result["parts"][0]["records"] = [comparison(ratios=ratios).model_dump(mode="json")]
        text = page(result)
        assert f">{said}</td>" in text
        assert "0.800 [0.750" in text


def test_readme_has_every_row_once():
    text = (REPOSITORY / "README.md").read_text()
    assert {row: text.count(f"<!-- gpu: {row} -->") for row in ROWS} == dict.fromkeys(ROWS, 1)
    assert text.count("<!-- /gpu -->") == len(ROWS)


def test_rows_of_readme_turn_by_what_was_tried_and_by_nothing_else(tmp_path):
    readme, file = tmp_path / "README.md", tmp_path / "gpu.json"
    readme.write_text((REPOSITORY / "README.md").read_text())
    tried = [
        finding("a", "passed", "training"),
        finding("b", "failed", "training"),
        finding("c", "skipped", "ort-cuda"),
    ]
    file.write_text(json.dumps(record(*tried)))
    assert update_readme(readme, file) == 0
    said = "<!-- gpu: training -->**tried on NVIDIA H100, sm_90**, 2026-11-30: 1 checks passed, 1 failed<!-- /gpu -->"
    changed = [line for line in readme.read_text().splitlines() if "NVIDIA H100" in line]
    assert len(changed) == 1
    assert said in changed[0]
    assert "<!-- gpu: ort-cuda -->**never run on a GPU**<!-- /gpu -->" in readme.read_text()


def test_providers_that_share_tests_have_rows_of_their_own(tmp_path):
    reports = _Reports(Told(tmp_path / "found"), "ort-cuda")
    for provider in ("ort-cuda", "ort-rtx"):
        report = {"nodeid": f"test_a_provider[bound-fp32-{provider}]", "failed": False, "skipped": False}
        reports.pytest_runtest_logreport(SimpleNamespace(**report, when="call", duration=0.1))
    found = map(json.loads, (tmp_path / "found").read_text().splitlines())
    assert [finding["path"] for _, finding in found] == ["ort-cuda", "ort-rtx"]


def test_readme_stays_without_a_card_and_a_record_of_another_version_is_refused(tmp_path):
    readme, file = tmp_path / "README.md", tmp_path / "gpu.json"
    readme.write_text("<!-- gpu: training -->never<!-- /gpu -->")
    for changes, code in (({"card": None}, 0), ({"schema_version": 2}, 1)):
        file.write_text(json.dumps(record(finding("a", "passed", "training")) | changes))
        assert update_readme(readme, file) == code
        assert readme.read_text() == "<!-- gpu: training -->never<!-- /gpu -->"


def test_a_bare_python_names_all_that_is_missing_and_goes_on(tmp_path, monkeypatch):
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    bare = [tmp_path / "bare" / "bin" / "python", COMMAND, "--quick", "--out", tmp_path]
    monkeypatch.delenv("PYTHONPATH", raising=False)
    done = subprocess.run(bare, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Not installed: click, jinja2, numpy, onnx," in done.stdout
    assert "No page: No module named" in done.stdout
    result = json.loads((tmp_path / "gpu.json").read_text())
    assert {"torch", "pytest"} <= set(result["missing"])
    assert all("'.[train,gpu,dev]' in the clone" in part["reason"] for part in result["parts"])
    assert all("tools/gpu --wheels DIR" in part["reason"] for part in result["parts"])


def test_wheels_are_unpacked_for_the_run_alone(tmp_path):
    gpu = load()
    assert gpu.add_wheels(tmp_path, tmp_path / "packages") == (None, f"{tmp_path} holds no wheels")
    name = "floats_edge_made_up-1.0"
    with zipfile.ZipFile(tmp_path / f"{name}-py3-none-any.whl", "w") as wheel:
        wheel.writestr("floats_edge_made_up.py", "there = True")
        wheel.writestr(f"{name}.dist-info/METADATA", "Metadata-Version: 2.1\nName: floats-edge-made-up\nVersion: 1.0\n")
        wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}.dist-info/RECORD", "")
    packages, trouble = gpu.add_wheels(tmp_path, tmp_path / "packages")
    assert trouble is None
    variables = gpu.environment(tmp_path, packages)
    subprocess.run([sys.executable, "-c", "import floats_edge_made_up"], env=variables, check=True)
