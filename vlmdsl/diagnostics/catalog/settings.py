"""V0848, V0849, V0868 and V0869: settings that are given twice, or that something else replaces."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = ["LengthTwice", "SettingFixed", "SettingTwice", "StageHasItsOwn"]


class SettingTwice(Problem):
    code = "V0848"
    template = "`{name}` is given twice: {first} and {second}"
    summary = "A command line gives a setting two values."
    explanation = (
        "What is on the command line replaces what is in the `--config` file. On the command line itself no value is more "
        "right than another: `--set train.steps=100 --steps 200`, or `--set train.batch=32 --set train.batch=64`, is "
        "rejected before the run rather than decided in silence. In Python the same holds for `overrides` and arguments "
        "such as `steps`; both replace what is in the file, and arguments replace `settings`. The same value twice is "
        "accepted, and so is a value for a part of what another one sets as a whole: "
        "`--set schedule.lowering=chunked --lowering pairs=dense`."
    )
    provoked_by = "`vlmdsl train clip --set train.steps=100 --steps 200`"


class LengthTwice(Problem):
    code = "V0849"
    template = "both `train.steps` ({steps}) and `train.epochs` ({epochs}) are given"
    summary = "The length of a run is given in steps and in epochs."
    explanation = (
        "`train.epochs` is turned into `train.steps` when the data is opened, so a run has one of them. Leave one out, or "
        "set `train.epochs` to `null`. A length on the command line replaces one in the `--config` file, whichever of the "
        "two it is. The default of `train.steps` does not count as given. The `config.yaml` of a run has both: its steps "
        "are those that were counted."
    )
    provoked_by = "`vlmdsl train clip --set train.epochs=3 --steps 100`"


class StageHasItsOwn(Problem):
    code = "V0868"
    template = "`{name}={value}` does not hold for the stage `{stage}`, which has its own"
    summary = "A setting on the command line would be replaced by that of a stage."
    explanation = (
        "`stages.NAME.train.steps` replaces `train.steps` for that stage. Where both are in one file, or both on the "
        "command line, that is what is asked for. Where the file has the one of a stage, and the command line the one of "
        "the run, it is not clear which is meant: the later one or the more specific one. So the command line has to say it "
        "for the stage, too. A setting of the run that every stage replaces has no effect, and is rejected as well."
    )
    provoked_by = "`--steps 10` with a `--config` file that has `stages.second.train.steps`"


class SettingFixed(Problem):
    code = "V0869"
    template = "`{name}` is always {value} for this command"
    summary = "A command line gives a setting that the command does not read."
    explanation = (
        "Some commands run a recipe in one way only: `vlmdsl verify` compares processes on the CPU, with towers in float32 "
        "and micro-batches of its own. What a `--config` file says of these settings is for training, and is passed over; "
        "on the command line it would be lost in silence."
    )
    provoked_by = "`vlmdsl verify clip --set train.device=cuda`"
