"""What docs/embedding.md says runs, in each library that is installed, and the loss falls; objectives show their formula."""

from __future__ import annotations

import json
import os
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vlmdsl

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")


def documented() -> dict[str, Any]:
    """The functions and classes of the page, uncompiled."""
    names: dict[str, Any] = {"__name__": "embedding"}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL):
        block = block.replace('("clip", temperature=0.1)', '("clip", compiled=False, temperature=0.1)')
        exec(block.replace("compile(recipe)", "compile(recipe, compiled=False)"), names)
    return names


def batches(count: int = 40) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    pairs = [torch.randn(2, 16, 32, generator=generator) for _ in range(4)]
    return [(pair[0], pair[1]) for _ in range(count // 4) for pair in pairs]


LOOPS = {
    "plain_loop": None, "fabric_loop": "lightning_fabric", "accelerate_loop": "accelerate", "trainer_loop": "transformers",
}  # fmt: skip


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_the_loops_of_the_page_train(loop: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = LOOPS[loop]
    if library is not None:
        pytest.importorskip(library, reason=f"{library} is not installed")
    if loop == "trainer_loop":
        pytest.importorskip("accelerate", reason="accelerate is not installed, which the trainer needs")
    monkeypatch.chdir(tmp_path)
    names = documented()
    torch.manual_seed(0)
    model = names["Pairs"]()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with torch.no_grad():
        first = model(*batches()[0]).item()
    loss = names[loop](model, batches())
    assert loss < first - 0.3
    assert all(not torch.equal(before[name], weight) for name, weight in model.named_parameters())


class Sentences(nn.Module):
    """The part of a SentenceTransformer that losses use."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(50, 8)

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**features, "sentence_embedding": self.words(features["input_ids"])}


def test_a_loss_of_sentence_transformers_takes_its_features() -> None:
    torch.manual_seed(0)
    loss = documented()["RecipeLoss"](Sentences())
    features = [{"input_ids": torch.randint(0, 50, (6, 4))} for _ in range(2)]
    value = loss(features, None)
    value.backward()
    image, text = (nn.functional.normalize(loss.model(part)["sentence_embedding"], dim=-1) for part in features)
    logits = image @ text.T / 0.07
    places = torch.arange(6)
    expected = (nn.functional.cross_entropy(logits, places) + nn.functional.cross_entropy(logits.T, places)) / 2
    assert torch.allclose(value, expected, atol=1e-5)
    assert loss.model.words.weight.grad.abs().sum() > 0


def test_a_sentence_transformer_is_trained_by_it() -> None:
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    from tokenizers import Tokenizer

    from vlmdsl.runtime.tokenizer import train_tokenizer

    backend = Tokenizer.from_str(train_tokenizer(["a red circle", "a blue square"], 300).to_library_json())
    modules = getattr(library, "models", None) or import_module("sentence_transformers.sentence_transformer.modules")
    static = modules.StaticEmbedding(backend, embedding_dim=8)
    model = library.SentenceTransformer(modules=[static], device="cpu")
    loss = documented()["RecipeLoss"](model)
    features = [model.tokenize(texts) for texts in (["a red circle", "a blue square"], ["red", "blue"])]
    loss(features, None).backward()
    assert sum(weight.grad is not None for weight in model.parameters()) == 1


def test_an_objective_shows_its_formula_and_its_inputs() -> None:
    objective = vlmdsl.compile("clip", compiled=False)
    assert objective._repr_latex_() == f"$\\displaystyle {objective.latex()}$"
    page = objective._repr_html_()
    assert "$$" in page
    assert "image" in page
    assert page.count("<tr>") == 1 + len(objective.inputs)
    assert "&amp;" in page  # the alignment marks of LaTeX are not entities


def test_the_notebook_was_run_and_shows_results() -> None:
    notebook = json.loads((ROOT / "docs" / "objectives.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert len(code) >= 4
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("text/html" in output.get("data", {}) for output in outputs)
    text = json.dumps(notebook)
    assert os.sep + "tmp" not in text
    assert sys.prefix not in text
