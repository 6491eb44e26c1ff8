"""Numeric oracles: inputs, results and gradients of a method as its authors' code, or its paper's formula, gives them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Oracle", "load_oracle"]


@dataclass(frozen=True)
class Oracle:
    """One case: `inputs` by name, `outputs` (`total` is the loss), `gradients` of the loss by input.

    `rtol` is the relative tolerance that agreement means; `source` is `official`, `reference`, `paper` or `reconstruction`.
    """

    name: str
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    gradients: dict[str, Tensor]
    rtol: float
    source: str
    hyperparameters: dict[str, Any]
    description: dict[str, Any]


def load_oracle(folder: Path, name: str) -> Oracle:
    """The oracle `name` of a folder that holds `name.npz` and `name.json`; FileNotFoundError if it does not."""
    import numpy
    import torch

    description = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    with numpy.load(folder / f"{name}.npz", allow_pickle=False) as archive:
        arrays = {key: torch.from_numpy(archive[key].copy()) for key in archive.files}
    outputs = {key.removeprefix("out_"): value for key, value in arrays.items() if key.startswith("out_")}
    gradients = {key.removeprefix("grad_"): value for key, value in arrays.items() if key.startswith("grad_")}
    return Oracle(
        name=name,
        inputs={key: value for key, value in arrays.items() if not key.startswith(("out_", "grad_"))},
        outputs=outputs,
        gradients=gradients,
        rtol=float(description.get("rtol", 1e-7)),
        source=str(description.get("source", "")),
        hyperparameters=dict(description.get("hyperparameters", {})),
        description=description,
    )
