"""V0910: what the machine has to compute on."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = ["DeviceMissing"]


class DeviceMissing(Problem):
    code = "V0910"
    template = "torch {torch} finds no {device} device"
    summary = "The device that the run asks for is not there."
    explanation = (
        "The run was told to use a device (`--device`, or `train.device` in the configuration) that torch cannot see on "
        "this machine. Either there is none, or its driver is not installed, or the installed torch is the build for the "
        "CPU only (its version then ends in `+cpu`). `--device cpu` runs anywhere, and `--device auto`, the default, takes "
        "a CUDA device if there is one. `python -c 'import torch; print(torch.cuda.is_available())'` asks torch directly."
    )
    provoked_by = "`--device cuda` on a machine without a GPU"
