"""A status holds for the meaning it was written for: not for a copy that means something else, nor with other numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

import vlmdsl
from vlmdsl.source.bundled import bundled_names, bundled_text


def text_of(name: str) -> str:
    text = bundled_text(name)
    assert text is not None
    return text.text


CLIP, FILIP = text_of("clip"), text_of("filip")
SAME = {
    "a copy": CLIP,
    "a comment": CLIP + "# a comment\n",
    "layout": CLIP.replace("minimize ", "minimize   ").replace("\n", "\n\n"),
    "documentation": CLIP.replace("## CLIP", "## My CLIP"),
    "its own name": CLIP.replace("recipe clip", "recipe mine"),
    "the name of a hyper-parameter": CLIP.replace("max_scale = 100", "largest = 100").replace(
        "max_scale=max_scale", "max_scale=largest"
    ),
    "the name of a let": FILIP.replace("tau", "divisor"),
    "order": CLIP.replace("image,\n  text", "image, text"),
    "what does the same": FILIP.replace("share = 100%", "share = 1.0"),
}
OTHER = {
    "another similarity": CLIP.replace("image, text,", "image, text, sim=tokenmax,"),
    "a default": CLIP.replace("temperature = 0.07", "temperature = 0.1"),
    "another encoder": CLIP.replace("minimize", "encoder vision = frozen(vision)\nminimize"),
    "one term more": CLIP.replace("minimize contrast", "minimize 0.5 * contrast(image, text) + contrast"),
    "a selection": FILIP.replace("share = 100%", "share = 25%"),
    "claims of another recipe": CLIP.replace(
        CLIP[CLIP.index("status") : CLIP.index("\n", CLIP.index("status"))],
        text_of("siglip")[
            text_of("siglip").index("status") : text_of("siglip").index("\n", text_of("siglip").index("status"))
        ],
    ),
}


@pytest.mark.parametrize("edit", SAME)
def test_edits_that_mean_the_same_keep_it(edit: str) -> None:
    page = vlmdsl.explain(SAME[edit])
    assert page.facts["status_holds"] is True
    assert str(page.facts["status"]).startswith("verified: ")
    assert "verified: " in page.to_text()


@pytest.mark.parametrize("edit", OTHER)
def test_edits_of_meaning_lose_it(edit: str, tmp_path: Path) -> None:
    (tmp_path / "mine.vlo").write_text(OTHER[edit], encoding="utf-8")
    page = vlmdsl.explain(tmp_path / "mine.vlo")
    assert page.facts["status_holds"] is False
    assert "verified" not in page.to_text()
    assert "which refers to" in str(page.facts["status"])


def test_other_numbers_lose_it_and_are_named_and_numbers_that_change_nothing_do_not() -> None:
    assert vlmdsl.explain("clip").facts["status_holds"] is True
    page = vlmdsl.explain("clip", knobs={"temperature": 0.1})
    assert page.facts["status_holds"] is False
    assert "`temperature` = 0.1" in str(page.facts["status"])
    assert "verified" not in page.to_text()
    assert vlmdsl.explain("filip", knobs={"share": 1.0, "scales": "one"}).facts["status_holds"] is True


def test_what_nobody_here_wrote_is_its_authors_claim() -> None:
    page = vlmdsl.explain(CLIP.replace('status "verified: values', 'status "verified: all values'))
    assert page.facts["status_holds"] is None
    assert "claimed by its author, not verified here: verified: all values" in page.to_text()
    unsaid = vlmdsl.explain("recipe mine(image: Image, text: Text)\nminimize contrast(image, text)\n")
    assert (unsaid.facts["status"], unsaid.facts["status_holds"]) == ("", None)


def test_every_bundled_recipe_keeps_its_own() -> None:
    for name in bundled_names():
        assert vlmdsl.explain(name).facts["status_holds"] is True, name
