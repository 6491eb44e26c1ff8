"""Writes docs/objectives.ipynb and runs it: `python docs/make_notebook.py`, with nbformat, nbclient and ipykernel."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

PLACE = Path(__file__).resolve().parent / "objectives.ipynb"
CELLS = [
    "# Objectives in a notebook\n\nAn objective is shown as its formula and what it takes.",
    'import torch\nimport vlmdsl\n\nobjective = vlmdsl.compile("clip", compiled=False)\nobjective',
    "Another similarity, and what it changes:",
    'vlmdsl.compile("filip", compiled=False)',
    "It is a module from features to a loss, with gradients:",
    (
        "torch.manual_seed(0)\nimages, texts = torch.randn(2, 8, 16).requires_grad_()\n"
        "out = objective(image=images, text=texts)\n"
        "{name: round(value.item(), 4) for name, value in {**out.terms, **out.metrics}.items()}"
    ),
    "What a step costs before there is a model:",
    'print(vlmdsl.plan("clip", batch=4096).to_text())',
    "A short training on the built-in scenes, and the loss of its steps:",
    (
        "import json, tempfile\nfrom pathlib import Path\n\n"
        'settings = {"train.batch": 32, "train.compile": False, "evaluation.limit": 64, "train.log_every": 5}\n'
        'run = vlmdsl.train("clip", data=["shapes:samples=256"], val=["shapes:samples=64"], steps=40, settings=settings,\n'
        "                   out=tempfile.mkdtemp())\n"
        'lines = [json.loads(line) for line in (Path(run.folder) / "metrics.jsonl").read_text().splitlines()]\n'
        '[(line["step"], round(line["loss"], 2)) for line in lines if "loss" in line]'
    ),
    "And what it says of two texts for a picture:",
    (
        "from vlmdsl.runtime.data import open_source\n\n"
        'scene = open_source(("shapes:samples=4",), "val")[0]\n'
        'scene["text"], vlmdsl.load(run.folder).classify(scene["image"], ["red circle", "blue square"]).round(decimals=3)'
    ),
]


def main() -> None:
    cells = [new_markdown_cell(text) if number % 2 == 0 else new_code_cell(text) for number, text in enumerate(CELLS)]
    notebook = new_notebook(cells=cells)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    notebook.metadata = {"language_info": {"name": "python"}}
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
        cell["metadata"] = {}
        if cell["cell_type"] == "code":  # progress is not a result
            kept = [output for output in cell["outputs"] if output.get("name") != "stderr"]
            cell["outputs"] = [output for output in kept if output["output_type"] != "display_data"]
    nbformat.write(notebook, PLACE)


if __name__ == "__main__":
    main()
