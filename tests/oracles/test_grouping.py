"""Which group a segment is assigned to, and what gradient that gives: as in the authors' code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from vlmdsl.runtime.modules.towers.grouping import hard_assignment

DATA = Path(__file__).parent / "data"


def test_the_hard_assignment_over_groups() -> None:
    tolerances = json.loads((DATA / "groupvit-hard_assign.json").read_text())
    with np.load(DATA / "groupvit-hard_assign.npz") as arrays:
        logits = torch.from_numpy(arrays["raw_attn"]).requires_grad_()
        assignment = hard_assignment(logits)
        # Theirs is the soft value added and taken away again, so a little beside 0 and 1; ours is exact.
        assert set(assignment.unique().tolist()) == {0.0, 1.0}
        (assignment * torch.from_numpy(arrays["cotangent"])).sum().backward()
        for value, name in ((assignment, "out_assign"), (logits.grad, "grad_raw_attn")):
            expected = torch.from_numpy(arrays[name])
            torch.testing.assert_close(value, expected, rtol=tolerances["rtol"], atol=tolerances["atol"], check_dtype=True)
