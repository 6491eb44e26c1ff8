"""The authors' numbers on several processes: each gives the gradients of its own rows, times the number of processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
import torch.distributed as dist

import vlmdsl
from oracles.cases import CYCLIP, FEATURES, MOCO_V3, REWRITTEN, SCALE, SCALE_AND_BIAS, SLIP, Case, teachers
from vlmdsl.testing.distributed import run_processes

PER_RANK = "out_loss_per_rank"
TOTALS = "out_total_per_rank"
# CyCLIP's processes each compute the whole loss and differentiate their own rows: its gradient, not times the processes.
OF_THE_WHOLE = ("cyclip-2rank",)
# SLIP's processes gather images and texts without gradient, so theirs is not the gradient of the whole batch.
DETACHED = ("image_augment_crop_0", "text")
CASES = [
    (
        Case("clip-openclip_dist_local_grad", "clip", FEATURES, SCALE, total=PER_RANK),
        2,
        {"log_scale": "out_grad_log_scale_per_rank"},
    ),
    (Case("laclip-clip-2rank", "laclip", REWRITTEN, SCALE, total=PER_RANK), 2, {"log_scale": "grad_log_scale"}),
    (Case("cyclip-2rank", CYCLIP, FEATURES, SCALE, total=TOTALS), 2, {"log_scale": "grad_log_scale"}),
    (Case("moco_v3-loss-2rank", "moco_v3", MOCO_V3, {}, total=TOTALS, no_gradient=teachers(MOCO_V3)), 2, {}),
    (Case("slip-total-2rank", "slip", SLIP, SCALE, total=TOTALS, unstated=DETACHED), 2, {}),
    *(
        (
            Case(f"siglip-openclip_dist_{exchange}", "siglip", FEATURES, SCALE_AND_BIAS, total=PER_RANK),
            3,
            {"log_scale": "out_grad_log_scale_per_rank", "bias": "out_grad_bias_per_rank"},
        )
        for exchange in ("bidir", "shift", "reduce", "gather")
    ),
]


def one_process(case: Case, lowering: str = "auto") -> dict[str, Any]:
    """The loss, the gradients of this process's rows and those of the learned numbers."""
    arrays, _ = case.load()
    rank, processes = dist.get_rank(), dist.get_world_size()
    objective = vlmdsl.compile(case.recipe, compiled=False, lowering=lowering).double()
    features = {}
    for name, key in case.inputs.items():
        rows = torch.from_numpy(arrays[key]).chunk(processes)[rank]
        features[name] = rows.clone().requires_grad_()
    with torch.no_grad():
        for name, key in case.parameters.items():
            objective.get_parameter(name).fill_(float(arrays[key]))
    loss = objective(**features).loss
    loss.backward()
    gradients = {name: value.grad for name, value in features.items() if value.grad is not None}
    learned = {name: objective.get_parameter(name).grad for name in case.parameters}
    return {"loss": loss.detach(), "features": gradients, "learned": learned}


@pytest.mark.distributed
@pytest.mark.parametrize(("case", "processes", "learned"), CASES, ids=lambda value: getattr(value, "oracle", None))
def test_processes_give_the_oracle(case: Case, processes: int, learned: Mapping[str, str]) -> None:
    check(case, processes, learned)


@pytest.mark.distributed
def test_processes_in_blocks_give_the_oracle() -> None:
    check(*CASES[-1], lowering="chunked")


def check(case: Case, processes: int, learned: Mapping[str, str], lowering: str = "auto") -> None:
    """What every process gets, put together, is the oracle's."""
    arrays, rtol = case.load()
    results = run_processes(one_process, processes, case, lowering)
    for name, key in case.inputs.items():
        if name in case.no_gradient:
            assert all(name not in result["features"] for result in results)
            continue
        gathered = torch.cat([result["features"][name] for result in results])
        gathered = gathered / processes if case.oracle in OF_THE_WHOLE else gathered
        agrees = torch.allclose(gathered, torch.from_numpy(arrays[f"grad_{key}"]), rtol=rtol, atol=1e-12)
        assert agrees == (name not in case.unstated), name
    # The authors' processes each return the loss of their own rows; ours all return the mean of these, the global loss.
    global_loss = torch.from_numpy(arrays[case.total]).mean()
    for result in results:
        torch.testing.assert_close(result["loss"], global_loss, rtol=rtol, atol=1e-12)
    for name, key in learned.items():
        ours = torch.stack([result["learned"][name] for result in results]).mean()
        torch.testing.assert_close(ours, torch.from_numpy(arrays[key]).mean(), rtol=rtol, atol=1e-12)
