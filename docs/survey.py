"""The methods of the survey (Zhang et al., "Vision-Language Models for Vision Tasks", arXiv:2304.00685), by its sections.

Rows are the methods of its table of pre-training methods, under the section of their main objective; `recipes_of` finds the
bundled recipes of each, also those of its variants. `README.md` and `docs/recipes.md` follow these sections.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["BEYOND", "FURTHER", "ROWS", "SECTIONS", "Row", "by_section", "objectives_of", "recipes_of"]

SECTIONS = ("Contrastive objectives", "Generative objectives", "Alignment objectives")
BEYOND = "Beyond the survey's table"


@dataclass(frozen=True)
class Row:
    """A method: its name, the name of its recipe, its section, and its kinds of objectives as the survey has them."""

    method: str
    recipe: str
    section: str
    objectives: str
    variants: tuple[str, ...] = ()
    """Further recipes that are parts or variants of it; those whose name begins with that of the recipe need no mention."""


_C, _G, _A = SECTIONS
ROWS = (
    Row("SLIP", "slip", _C, "contrastive"),
    Row("CLIP", "clip", _C, "contrastive"),
    Row("ALIGN", "align", _C, "contrastive"),
    Row("OTTER", "otter", _C, "contrastive"),
    Row("DeCLIP", "declip", _C, "contrastive, generative"),
    Row("ZeroVL", "zerovl", _C, "contrastive"),
    Row("FILIP", "filip", _C, "contrastive, alignment"),
    Row("PyramidCLIP", "pyramidclip", _C, "contrastive"),
    Row("Chinese CLIP", "chinese_clip", _C, "contrastive"),
    Row("LiT", "lit", _C, "contrastive"),
    Row("AltCLIP", "altclip", _C, "contrastive"),
    Row("K-LITE", "klite", _C, "contrastive"),
    Row("UniCLIP", "uniclip", _C, "contrastive"),
    Row("HiCLIP", "hiclip", _C, "contrastive"),
    Row("CLIPPO", "clippo", _C, "contrastive"),
    Row("OneR", "oner", _C, "contrastive, generative"),
    Row("RA-CLIP", "ra_clip", _C, "contrastive"),
    Row("LaCLIP", "laclip", _C, "contrastive"),
    Row("ALIP", "alip", _C, "contrastive"),
    Row("GrowCLIP", "growclip", _C, "contrastive"),
    Row("GroupViT", "groupvit", _C, "contrastive"),
    Row("CLIPpy", "clippy", _C, "contrastive"),
    Row("UniCL", "unicl", _C, "contrastive"),
    Row("Florence", "florence", _C, "contrastive"),
    Row("FLAVA", "flava", _G, "contrastive, generative, alignment"),
    Row("KELIP", "kelip", _G, "contrastive, generative"),
    Row("SegCLIP", "segclip", _G, "contrastive, generative"),
    Row("CoCa", "coca", _G, "contrastive, generative"),
    Row("NLIP", "nlip", _G, "contrastive, generative"),
    Row("PaLI", "pali", _G, "generative"),
    Row("nCLIP", "nclip", _A, "contrastive, alignment", variants=("xclip",)),
    Row("GLIP", "glip", _A, "alignment"),
    Row("FIBER", "fiber", _A, "contrastive, generative, alignment"),
    Row("DetCLIP", "detclip", _A, "alignment"),
    Row("RegionCLIP", "regionclip", _A, "contrastive, alignment"),
)
"""In the order of `README.md`."""
FURTHER = {
    "simclr": "contrastive",
    "moco": "contrastive",
    "moco_v3": "contrastive",
    "byol": "contrastive",
    "simsiam": "contrastive",
    "siglip": "contrastive",
    "flip": "contrastive",
    "mae": "generative",
    "beit": "generative",
    "maskclip": "contrastive, generative",
    "simvlm": "generative",
    "cappa": "generative",
    "albef": "contrastive, generative, alignment",
    "blip": "contrastive, generative, alignment",
    "mdetr": "alignment",
    "grounding_dino": "alignment",
}
"""The kinds of objectives of recipes whose methods are not in the table, in the order of `README.md`."""


def recipes_of(row: Row, names: Iterable[str]) -> list[str]:
    """Which of the bundled recipes are a method's: the one with its name, and its variants."""
    own = [name for name in names if name in (row.recipe, *row.variants) or name.startswith(f"{row.recipe}_")]
    return [name for name in own if not any(name == other.recipe for other in ROWS if other is not row)]


def by_section(names: Iterable[str]) -> dict[str, list[str]]:
    """Section -> its recipes, in the order of `ROWS` and `FURTHER`, then all others by name."""
    names = list(names)
    sections: dict[str, list[str]] = {section: [] for section in (*SECTIONS, BEYOND)}
    for row in ROWS:
        sections[row.section] += recipes_of(row, names)
    of_survey = {name for recipes in sections.values() for name in recipes}
    further = [name for name in names if name not in of_survey]
    sections[BEYOND] = sorted(further, key=lambda name: list(FURTHER).index(name) if name in FURTHER else len(FURTHER))
    return sections


def objectives_of(recipe: str) -> str:
    """The kinds of objectives of a recipe; "" where nothing says."""
    return next((row.objectives for row in ROWS if recipe in recipes_of(row, [recipe])), FURTHER.get(recipe, ""))
