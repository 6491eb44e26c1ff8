"""The page of a run: written at its end and again from its folder, harmless whatever a stranger says, shown by a browser."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

import vlmdsl
from unit.runtime.reporting.test_pages import HOSTILE, harmless
from vlmdsl.api.report import report
from vlmdsl.diagnostics import DiagnosticError

SETTINGS = {"train.batch": 8, "train.compile": False, "train.log_every": 1}
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
SCRIPT = "<script>document.title='taken over'</script><img src=x onerror=\"document.title='taken over'\">"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two terms, and gradient norms of both."""
    text = (
        "recipe two(image: Image, text: Text)\nminimize {\n  a: contrast(image, text)\n  b: sigmoid_contrast(image, text)\n}"
    )
    settings = SETTINGS | {"data.val": ("shapes:samples=24",), "train.term_gradients_every": 2}
    options = {"expression": True, "data": ["shapes:samples=32"], "steps": 3, "settings": settings}
    return vlmdsl.train(text, **options, out=tmp_path_factory.mktemp("runs") / "two").folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on data, and of a recipe, that try to put a script into the page."""
    data = tmp_path_factory.mktemp("data")
    rows = []
    for number in range(12):
        Image.new("RGB", (12, 12), (20 * number, 90, 200)).save(data / f"{number}.png")
        rows.append(
            {
                "image": f"{number}.png",
                "text": f"{number} {SCRIPT}",
                "label": number % 2,
                "class_name": SCRIPT + str(number % 2),
            }
        )
    rows.append({"image": "missing.png", "text": SCRIPT})
    (data / "table.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    recipe = data / "mine.vlo"
    recipe.write_text(f"vlo 1\n\n## {SCRIPT}\nrecipe mine(image: Image, text: Text)\n\nminimize contrast(image, text)\n")
    settings = SETTINGS | {"data.val": (str(data / "table.jsonl"),), "evaluation.templates": ("{} " + SCRIPT,)}
    out = tmp_path_factory.mktemp("runs") / "mine"
    return vlmdsl.train(recipe, data=[str(data / "table.jsonl")], steps=2, settings=settings, out=out).folder


def test_a_run_ends_with_a_page_of_everything(run: Path) -> None:
    text = (run / "report.html").read_text()
    words = " ".join(harmless(text).texts)
    for title in ("Results", "Training", "Objective", "Retrieval", "Confused classes", "Plan", "Settings", "Environment"):
        assert title in words
    for part in (
        "zero-shot top-1",
        "term a",
        "term b",
        "gradient norm of each term",
        "temperature",
        "at chance",
        "train.batch",
    ):
        assert part in words
    assert text.count("data:image/png") == 36
    assert text.count("data:image/svg+xml") == 1


def test_it_is_written_again_from_the_folder(run: Path) -> None:
    before = (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert report(run).path == run / "report.html"
    # The plan names places in the recipe, which is another file now.
    again = (run / "report.html").read_text()
    plan = re.compile('<section id="plan">.*?</section>', re.DOTALL)
    assert plan.sub("", again) == plan.sub("", before) != again


def test_a_page_of_hostile_data_is_harmless(hostile: Path) -> None:
    seen = harmless((hostile / "report.html").read_text())
    quoted = [part for part in seen.texts if "<script>" in part]
    assert any(part.startswith("0 ") or " 0 <script>" in part for part in quoted), "captions are shown"
    assert any(part == SCRIPT for part in quoted), "the documentation is shown"
    assert "1 sample" in " ".join(seen.texts), "the missing image is counted"


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed: `apt-get install chromium`")
@pytest.mark.slow
def test_a_browser_shows_it_and_runs_nothing(hostile: Path, run: Path, tmp_path: Path) -> None:
    command = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile"]
    shown = subprocess.run(
        [*command, "--dump-dom", f"file://{hostile}/report.html"], capture_output=True, text=True, timeout=120
    )
    assert "<title>Run of mine</title>" in shown.stdout, "the script has changed the title"
    picture = tmp_path / "page.png"
    options = [f"--screenshot={picture}", "--window-size=1100,2400", "--hide-scrollbars", f"file://{run}/report.html"]
    subprocess.run([*command, *options], check=True, capture_output=True, timeout=120)
    with Image.open(picture) as page:
        assert page.size == (1100, 2400)
        assert len(page.convert("RGB").getcolors(2_000_000)) > 500, "the pictures of scenes are not shown"


def test_what_is_damaged_is_named(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "examples.json").write_text('{"format": 1, "image_to_text": [{"rank": -1}]}')
    with pytest.raises(DiagnosticError) as caught:
        report(copy)
    assert [diagnostic.code for diagnostic in caught.value.diagnostics] == ["V0850"]
    (copy / "examples.json").unlink()
    (copy / "evaluation.json").unlink()
    (copy / "metrics.jsonl").unlink()
    report(copy)
    assert "Results" not in (copy / "report.html").read_text()


def test_a_name_in_the_metrics_of_a_stranger_is_refused(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    (copy / "metrics.jsonl").write_text(json.dumps({"step": 1, "loss": 1.0, HOSTILE: 2.0}) + "\n")
    with pytest.raises(DiagnosticError):
        report(copy)


def test_pictures_of_parts_are_embedded(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    written = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(written, "PNG")
    (copy / "captions.png").write_bytes(written.getvalue())
    report(copy)
    assert (copy / "report.html").read_text().count("data:image/png") == 37
