"""V0910: what the machine has to compute on."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = ["DeviceMissing"]


class DeviceMissing(Problem):
    code = "V0910"
    template = "torch {torch} sees no {device} device"
    summary = "The requested device is not available."
    explanation = (
        "The run requests a device (`--device`, or `train.device` in the configuration) that torch does not see on this "
        "machine. Either there is none, or its driver is not installed, or the installed torch is a CPU-only build (its "
        "version then ends in `+cpu`). `--device cpu` runs anywhere, and `--device auto`, the default, uses a CUDA device "
        "if there is one. To ask torch directly, run `python -c 'import torch; print(torch.cuda.is_available())'`."
    )
    provoked_by = "`--device cuda` on a machine without a GPU"
