"""What the loader passes to the model."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vlmdsl.runtime.values.tuples import Value, to

__all__ = ["Batch", "port"]


def port(name: str, what: str) -> str:
    """The name in a batch of a port of the value `name`: `keep` (`KeptPatches`), `replace` (`ReplacedPatches`),
    `noise` (`Noise`), `masked` (`MaskedTokens`), `own` (`OwnTexts`), `word_map` (`WordMaps`). No field can be called so.

    >>> port("image_drop", "keep")
    'image_drop.keep'
    """
    return f"{name}.{what}"


@dataclass(frozen=True)
class Batch:
    """This process's share of one batch: b samples.

    `values` are by name: what modules take by the names of `VisionLanguageModel.readings`, what comes with it by that of
    its `port`, and plain fields by their own. `index [b]`, int64, is where each sample is in its source, `keys` what it is
    called there. `draws` are the numbers drawn for the step, 0-d, and for each sample, `[b]` or
    `[b, K]`, and those that follow the run, 0-d. `flow` is the name of the flow that the batch is for, where a stage has
    several, and `ends_epoch` whether it is the last one of an epoch of that flow.
    """

    values: dict[str, Value]
    index: Tensor
    keys: list[str]
    draws: dict[str, Tensor] = field(default_factory=dict)
    flow: str = ""
    ends_epoch: bool = False

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same on `device`."""
        return Batch(
            {name: to(value, device, non_blocking) for name, value in self.values.items()},
            self.index.to(device, non_blocking=non_blocking),
            self.keys,
            {name: draw.to(device, non_blocking=non_blocking) for name, draw in self.draws.items()},
            self.flow,
            self.ends_epoch,
        )
