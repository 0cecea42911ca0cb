"""The report in a browser, where one is installed."""

import json
import shutil
import subprocess

import numpy as np
import pytest
from page_reader import read_page
from PIL import Image

from experiments.report.__main__ import main
from zoo.figures.publish import publish
from zoo.figures.style import new_figure

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="neither chromium nor google-chrome is installed")

LIGHT, DARK = (0xF7, 0xF7, 0xF5), (0x12, 0x14, 0x17)  # --page in page.css
PROBE = """<script>
addEventListener("load", () => {
  const images = [...document.images].map(image => image.complete ? image.naturalWidth : -1);
  const facts = {images, page: document.documentElement.scrollWidth, window: innerWidth};
  document.title = JSON.stringify(facts);
});
</script></body>"""


@pytest.fixture(scope="module")
def page(run_once, tmp_path_factory):
    """Two runs beside each other, with figures."""
    directory = tmp_path_factory.mktemp("browser")
    runs = [directory / "first", directory / "second"]
    for run in runs:
        shutil.copytree(run_once("xor", "--trainer.max_epochs", "4").directory, run)
        for name, width in (("decision_boundary", 4.0), ("very_wide", 14.0)):
            publish(new_figure(name, width, 3.0), name, run / "figures", [], step=1)
    return main([*map(str, runs), "--output", str(directory / "page.html")])


@pytest.fixture
def browse(tmp_path):
    """Opens a page; returns what the browser wrote to its output and to its log."""

    def browse(path, *options, width=1280, height=1000):
        command = [
            *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
            *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
            *("--enable-logging=stderr", "--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'profile'}"),
            *(f"--window-size={width},{height}", *options, path.resolve().as_uri()),
        ]
        done = subprocess.run(command, capture_output=True, check=True, timeout=120)
        return done.stdout.decode(), done.stderr.decode(errors="replace")

    return browse


def probed(page, directory, *, with_policy):
    """A copy of the page that looks at itself, which its policy would not allow."""
    text = page.read_text(encoding="utf-8")
    start = text.index("<meta http-equiv")
    policy = text[start : text.index(">", start) + 1]
    changed = text.replace("</body>", PROBE)
    copy = directory / "probed.html"
    copy.write_text(changed if with_policy else changed.replace(policy, ""), encoding="utf-8")
    return copy


@pytest.mark.parametrize("width", [1280, 500])
def test_every_picture_is_shown_and_nothing_sticks_out(page, browse, tmp_path, width):
    dom, log = browse(probed(page, tmp_path, with_policy=False), "--dump-dom", width=width)
    facts = json.loads(read_page(dom.replace("<!DOCTYPE", "<!doctype").rstrip()).one("title").text)
    pictures = page.read_text(encoding="utf-8").count("<img ")
    assert len(facts["images"]) == pictures > 8
    assert min(facts["images"]) > 100
    assert facts["page"] <= facts["window"]
    assert "CONSOLE" not in log


def test_a_script_in_the_page_would_not_run(page, browse, tmp_path):
    dom, log = browse(probed(page, tmp_path, with_policy=True), "--dump-dom")
    assert "<title>2 runs of xor</title>" in dom
    assert "Content Security Policy" in log


@pytest.mark.parametrize(("scheme", "background"), [(1, LIGHT), (0, DARK)])
def test_it_is_light_or_dark_as_one_likes_and_figures_are_on_white(page, browse, tmp_path, scheme, background):
    _, log = browse(
        page,
        f"--blink-settings=preferredColorScheme={scheme}",
        f"--screenshot={tmp_path / 'page.png'}",
        height=3000,
    )
    assert "CONSOLE" not in log  # no error, and nothing that the policy had to refuse
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
    assert tuple(pixels[5, 5]) == background
    white = (pixels == 255).all(axis=-1)
    assert white.mean() > 0.15
    assert (pixels[5:, 5:] != pixels[5, 5]).any(axis=-1).mean() > 0.2  # the style is in force: there are cards
