"""The page as a browser shows it."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from fixtures.examples import evaluation_with_examples
from fixtures.records import comparison, profile, run_evaluation

from floats_edge.report.html import write_html

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTH, HEIGHT = 1200, 9000
SEEN = """<script>
const box = (element) => { const b = element.getBoundingClientRect(); return [b.width, b.height]; };
const report = {
  svgs: [...document.querySelectorAll("figure svg")].map(box),
  tables: [...document.querySelectorAll("table")].map(box),
  pictures: [...document.images].map((image) => [image.naturalWidth, ...box(image)]),
  titles: [...document.querySelectorAll("h2")].map((h) => h.textContent),
  bars: document.querySelectorAll("figure svg path").length,
  overflow: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  requests: performance.getEntriesByType("resource").length,
};
document.title = JSON.stringify(report);
</script>"""


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(
            f"no browser to show the page in: none of {', '.join(BROWSERS)} is there (apt-get install chromium)"
        )
    return found


def run_browser(browser: str, profile_folder: Path, *options: str, width: int = WIDTH) -> str:
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    command += [f"--user-data-dir={profile_folder}", f"--window-size={width},{HEIGHT}", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    record, kept, _ = evaluation_with_examples()
    write_html([run_evaluation(), record, profile(), comparison()], path, [None, kept])
    return path


def look(browser: str, page: Path, tmp_path: Path, width: int = WIDTH) -> dict[str, Any]:
    """What a browser of a window ``width`` pixels wide makes of the page."""
    policy = 'content="default-src'
    text = page.read_text(encoding="utf-8")
    assert policy in text
    watched = tmp_path / "watched.html"  # the page's own policy lets no script run
    watched.write_text(text.replace(policy, 'content="script-src * ' + "'unsafe-inline'; " + "default-src") + SEEN)
    dom = run_browser(browser, tmp_path / "profile", "--dump-dom", watched.as_uri(), width=width)
    return json.loads(dom[dom.index("<title>") + 7 : dom.index("</title>")])


def test_plots_and_tables_are_laid_out(browser: str, page: Path, tmp_path: Path) -> None:
    seen = look(browser, page, tmp_path)
    assert len(seen["svgs"]) == 7
    assert all(width > 500 and height > 60 for width, height in seen["svgs"])
    assert len(seen["tables"]) >= 13
    assert all(width > 200 and height > 30 for width, height in seen["tables"])
    for title in ("Accuracy over lambda", "Latency", "Memory and size", "Energy", "Layers", "Comparison"):
        assert title in seen["titles"]
    assert len(seen["pictures"]) == 9
    assert all(pixels == 8 and width == height > 60 for pixels, width, height in seen["pictures"])
    assert seen["overflow"] == 0
    assert seen["requests"] == 0


def test_a_narrow_window_shows_all_of_it(browser: str, page: Path, tmp_path: Path) -> None:
    seen = look(browser, page, tmp_path, width=500)
    assert seen["overflow"] == 0
    assert all(width > 500 for width, _ in seen["svgs"]), "their text stays readable: they are scrolled"
    assert all(60 < width < 200 for _, width, _ in seen["pictures"])


def test_screenshot_shows_the_plots(browser: str, page: Path, tmp_path: Path) -> None:
    shot = tmp_path / "shot.png"
    run_browser(browser, tmp_path / "profile", f"--screenshot={shot}", page.as_uri())
    image = (matplotlib.image.imread(shot)[..., :3] * 255).round().astype(int)
    assert image.shape[:2] == (HEIGHT, WIDTH)
    for colour in ((0x0A, 0x6C, 0xB8), (0xC4, 0x4F, 0x00), (0x0F, 0x76, 0x6E)):
        close = np.abs(image - np.array(colour)).max(axis=2) < 12
        assert close.sum() > 100, colour
