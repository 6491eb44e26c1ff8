"""V0850 to V0859: the files of a run folder, who may work in it, and processes that train together."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = [
    "CheckpointMismatch",
    "FolderUnusable",
    "ProcessesDiffer",
    "RunFileDamaged",
    "RunInUse",
    "TermIdle",
    "TrackerFailed",
]


class RunFileDamaged(Problem):
    code = "V0850"
    template = "the file `{path}` of the run cannot be used: {reason}"
    summary = "A file of a run folder is missing, truncated, altered, or was not written by a run."
    explanation = (
        "The files of a run are verified before they are used: checkpoints, the configuration, `run.json` and the recipe "
        "by their SHA-256, all others by their format. A damaged file is never replaced by a guess. If the newest "
        "checkpoint is damaged, the previous one is used, with a warning; this message means that none is intact, or that "
        "another file is damaged. Copy the file again from where the folder came from. `evaluation.json` and "
        "`untrained.json` can be removed: their contents are measured again. Symbolic links, and anything else that is "
        "neither a regular file nor a folder, are not followed in a run folder, because it may come from someone else."
    )
    provoked_by = "`--resume` with a run folder whose `run.json` was truncated while it was copied"


class RunInUse(Problem):
    code = "V0851"
    template = "another process is using `{path}`"
    summary = "Two processes would train in the same run folder at the same time."
    explanation = (
        "Only one run may write metrics and checkpoints to a folder, so the folder is locked while it trains. The note "
        "names the process that holds the lock (the file `.lock`). A lock is released when its process ends, however it "
        "ends, so a crash never leaves one behind. The lock is a POSIX file lock (`fcntl`): it works between machines on "
        "network file systems that support locks (NFS with its lock service, Lustre mounted with `flock`), and only "
        "within one machine on others."
    )
    provoked_by = "`--resume FOLDER` twice at the same time"


class ProcessesDiffer(Problem):
    code = "V0852"
    template = "the processes of this run have different {what}"
    summary = "The processes of a distributed run were started with different arguments or read different data."
    explanation = (
        "Each process computes its part of the global batch, so all of them need the same recipe, settings, seed and "
        "data. This is checked before the first step, and every process stops with this message. The notes show what each "
        "process has. Common causes are a launch script that passes different arguments on each machine, a data folder "
        "that was not copied completely to one of the machines, or an older version installed on one of them."
    )
    provoked_by = "two processes that `torchrun` started on two machines with different `--seed`"


class CheckpointMismatch(Problem):
    code = "V0853"
    template = "the checkpoint `{path}` does not fit this run: {reason}"
    summary = "An intact checkpoint belongs to another recipe, other settings or towers of another width."
    explanation = (
        "The names and shapes of all weights and optimiser states are compared with the model's before any of them is "
        "loaded, and a checkpoint records which run wrote it. This diagnostic reports another recipe, another "
        "`model.dimension` or a checkpoint that was copied from another run. Put the run's own checkpoints back, or start "
        "a new run."
    )
    provoked_by = "`--resume FOLDER` after a checkpoint of another run was copied into `FOLDER/checkpoints`"


class FolderUnusable(Problem):
    code = "V0854"
    template = "`{path}` cannot be a run folder: {reason}"
    summary = "The path after `--out` or `--resume` cannot name a folder."
    explanation = (
        "A path must be valid UTF-8 without NUL characters, have names of at most 255 bytes, and lead through folders "
        "only. Choose another `--out`, or leave it out: the run then uses the first unused `runs/RECIPE-N`."
    )
    provoked_by = "`--out notes.txt/run`, where `notes.txt` is a file"


class TermIdle(Problem):
    code = "V0855"
    template = "the term `{term}` had nothing to do in {steps} steps: {reason}"
    summary = "A term of the loss was exactly 0, or about nothing, in many steps in a row."
    explanation = (
        "A criterion that selects (the tokens of a mask, the patches that were dropped, the samples for which a condition "
        "holds, the boxes of a class) is 0 where a step has none of them. If that is so in every step, the term trains "
        "nothing, and the loss does not show it. Common causes are a column that is empty or has the same value "
        "everywhere, a mask with a small share over short texts, and texts that are truncated before what is selected. "
        "Matching without a negative, and a focal loss without a region that has a word, are reported too: they are not 0, "
        "but teach one answer. "
        "It is a warning, given once for each term, and the run goes on. Terms whose weight is a schedule that begins or "
        "ends at 0 are not watched."
    )
    severity = "warning"
    provoked_by = (
        "`minimize { all: contrast(image, text)  noisy: contrast(image, text, keep=flag) }` where no `flag` is true"
    )


class TrackerFailed(Problem):
    code = "V0856"
    template = "the tracker `{tracker}` is given up: {reason}"
    summary = "A tracker of the setting `tracking.trackers` has raised an error."
    explanation = (
        "A tracker gets what the run logs. If its library or its server raises an error, the run goes on without it: this "
        "is said once, and nothing is lost, since `metrics.jsonl` and `evaluation.json` in the run folder have everything. "
        "The usual causes are a missing login (`wandb login`, or `WANDB_MODE=offline`), a server that cannot be reached "
        "(`MLFLOW_TRACKING_URI`) and a full disk. When the cause is fixed, `vlmdsl train --resume FOLDER` tracks again from "
        "the step at which it continues."
    )
    severity = "warning"
    provoked_by = "`--set tracking.trackers=mlflow` with `MLFLOW_TRACKING_URI` of a server that does not answer"
