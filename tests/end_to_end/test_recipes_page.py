"""`docs/recipes.md` is what the recipes, the tests and the evidence give."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import vlmdsl
from vlmdsl.api.driver import build_flows
from vlmdsl.ir.digest import digest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_recipes", ROOT / "docs" / "make_recipes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def page(maker: ModuleType) -> str:
    written: str = maker.make()
    return written


def meaning(recipe: str) -> str:
    return digest(*(built.written for built in build_flows(recipe)))


def test_the_committed_page_is_up_to_date(maker: ModuleType, page: str) -> None:
    assert page == maker.PAGE.read_text(encoding="utf-8"), "run `python docs/make_recipes.py`"


def test_every_recipe_is_shown_as_it_is_written(page: str) -> None:
    blocks = re.findall(r"^```\n(vlo 1\n.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    shown = {build_flows(block)[0].written.name: meaning(block) for block in blocks}
    assert len(shown) == len(blocks)
    assert shown == {card.name: meaning(card.name) for card in vlmdsl.recipes()}


def test_recipes_are_under_the_sections_of_the_survey(page: str) -> None:
    sections = {part.partition("\n")[0]: part for part in page.split("\n## ")[1:]}
    assert "\n### slip\n" in sections["Contrastive objectives"]
    assert "\n### kelip\n" in sections["Generative objectives"]
    assert "\n### xclip\n" in sections["Alignment objectives"]
    assert "\n### mae\n" in sections["Beyond the survey's table"]
    assert "| contrastive, generative |" in page


def test_every_recipe_has_its_oracles(maker: ModuleType) -> None:
    names = [card.name for card in vlmdsl.recipes()]
    listed = {name: {oracle.name: oracle.whole for oracle in oracles} for name, oracles in maker.oracles_of(names).items()}
    assert listed["clip"]["clip-openclip"]
    assert not listed["clip"]["clip-openclip_bias"]  # the recipe has no bias
    assert listed["alip"] == {"alip-adaptive_loss": False, "alip-steps-allopen": True, "alip-steps-cold": True}
    assert {"moco_v1-queue": True, "moco_v2-queue": True}.items() <= listed["moco"].items()
    assert "laclip_mt" not in listed["laclip"]


def test_evidence_is_reported_with_its_failures_and_its_age(maker: ModuleType) -> None:
    entry = {
        "date": "2026-01-31",
        "versions": {"torch": "2.13"},
        "knobs": {"temperature": 0.1},
        "digest": "of an earlier text",
        "because": "a short run",
        "overfit": {"statement": "64 pairs: 100.0 %.", "passed": True},
        "learns": {"statement": "R@1 0.3 %.", "passed": False},
    }
    entry |= {"further": {"statement": "Captions 91 %.", "passed": True, "pictures": ["clip.captions.png"]}}
    written = maker.make({"clip": entry})
    line = next(line for line in written.splitlines() if line.startswith("| [`clip`]"))
    assert line.endswith("| not as expected: learns |")
    assert "Training (2026-01-31, torch 2.13; `temperature` = 0.1; the recipe has changed since):" in written
    assert "- Reason: a short run.\n- 64 pairs: 100.0 %.\n- R@1 0.3 %. **Not as expected.**\n- Captions 91 %.\n" in written
    assert "![clip, captions, of held-out samples](images/recipes/clip.captions.png)" in written


def test_its_pictures_are_committed(maker: ModuleType, page: str) -> None:
    shown = set(re.findall(r"\(images/recipes/([^)]+)\)", page))
    assert shown == {path.name for path in maker.PICTURES.glob("*.png")}


def test_it_needs_no_torch() -> None:
    program = "import runpy, sys; runpy.run_path('docs/make_recipes.py')['make'](); sys.exit('torch' in sys.modules)"
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'cli'}", "PATH": ""}
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, timeout=60)
    assert finished.returncode == 0, finished.stderr.decode()
