"""V0840 to V0849: comparisons of several recipes."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = ["OneProcessOnly"]


class OneProcessOnly(Problem):
    code = "V0840"
    template = "a comparison runs in one process, and {count} were started"
    summary = "`vlmdsl compare` was started by torchrun with several processes."
    explanation = (
        "A comparison trains many models one after the other and skips those that its folder shows to be finished; "
        "several processes could disagree about which these are. A single run can use several processes: `torchrun "
        "--nproc-per-node 2 -m vlmdsl train clip --seed 1`. Alternatively, start several comparisons of different recipes "
        "side by side, each with its own folder."
    )
    provoked_by = "`torchrun --nproc-per-node 2 -m vlmdsl compare clip laclip`"
