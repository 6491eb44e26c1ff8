"""V0901 to V0909: what the environment does not have: packages, pretrained models, room on a disk, other processes."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = ["CannotWrite", "LoadingProcessLost", "PackageMissing", "PretrainedModelMissing", "ProcessLost"]


class PackageMissing(Problem):
    code = "V0901"
    template = "{what} needs the package `{package}`, which is not installed"
    summary = "An optional package is required."
    explanation = (
        "vlmdsl installs what every run needs. Adapters to other libraries are extras: `pip install 'vlmdsl[hf]'` adds "
        "`transformers` for encoders and tokenizers named `hf:...`, `pip install 'vlmdsl[ann]'` adds `faiss-cpu` for "
        "searching reference sets with faiss (`data.reference_search=faiss`), `pip install 'vlmdsl[superpixels]'` adds "
        "`scikit-image` for the stand-in `superpixels(image)`, `pip install 'vlmdsl[tensorboard]'` and likewise "
        "`[wandb]`, `[mlflow]` and `[trackio]` add trackers, `pip install 'vlmdsl[arrow]'` adds `pyarrow` for Parquet "
        "and Arrow files, `pip install 'vlmdsl[datasets]'` adds `datasets` for data named `hf:...`, `pip install "
        "'vlmdsl[zstandard]'` adds `backports.zstd` for shards named `.tar.zst` before Python 3.14, `pip install "
        "'vlmdsl[detection]'` adds `pycocotools` for the average precision of predicted boxes "
        "(`evaluation.average_precision`), `pip install 'vlmdsl[onnx]'` adds `onnxscript` for `vlmdsl export --format "
        "onnx`, `pip install 'vlmdsl[lora]'` adds `peft` for low-rank adapters (`model.lora`), and `vlmdsl[timm]` and "
        "`vlmdsl[open_clip]` add these libraries for encoders named after them; both import `torchvision`, which has to "
        "be the build that fits `torch`. If the package is installed, it is probably in a different environment from the "
        "`vlmdsl` that ran; `python -m pip show vlmdsl` and `python -m pip show PACKAGE` must name the same folder."
    )
    provoked_by = "`--set model.image_encoder=hf:google/vit-base-patch16-224` without transformers installed"


class PretrainedModelMissing(Problem):
    code = "V0902"
    template = "the pretrained model `{name}` cannot be loaded"
    summary = "A model named `hf:...`, `timm:...` or `open_clip:...` was not found, or its files cannot be used."
    explanation = (
        "`hf:NAME` names a folder on this machine, or a model of the Hugging Face hub, which is loaded from the local "
        "cache or downloaded. Without a connection only folders and cached models can be used; a private model requires "
        "a login. The folder needs a `config.json` and weights in the safetensors format; weights in the older pickle "
        "format are rejected, because loading them can run arbitrary code, and so are models that come with their own "
        "code. `timm:NAME` and `open_clip:MODEL/WEIGHTS` name a model of these libraries, which they load likewise, or a "
        "folder in their form. The note below the message is the error of the library."
    )
    provoked_by = "`--set model.text_encoder=hf:./nowhere`"


class CannotWrite(Problem):
    code = "V0903"
    template = "cannot write `{path}`: {reason}"
    summary = "The disk is full, a quota is exceeded, or the folder is not writable."
    explanation = (
        "A file of a run could not be written, so the run stopped rather than lose its metrics and checkpoints. What was "
        "written before is intact: a checkpoint is written beside the old ones, flushed to the disk and then renamed, and "
        "only then is an older one removed. Free some space and continue with `--resume FOLDER`; the result is the same "
        "as that of an uninterrupted run. `train.keep` and `train.checkpoint_every` determine how much space checkpoints "
        "take."
    )
    provoked_by = "a run whose checkpoints no longer fit on the disk"


class ProcessLost(Problem):
    code = "V0904"
    template = "the processes of this run cannot communicate: {reason}"
    summary = "Another process of a distributed run ended, never started, or cannot be reached."
    explanation = (
        "All processes train one model together, and one that is missing stops all of them. The output of the process "
        "that ended first states why it did. Processes that `torchrun` starts find each other automatically. Those "
        "started by hand need `RANK`, `WORLD_SIZE`, `MASTER_ADDR` and `MASTER_PORT`, and wait five minutes for each "
        "other. Once the cause is fixed, continue with `--resume FOLDER`."
    )
    provoked_by = "two processes started by hand, of which one ends immediately because its `--data` does not exist"


class LoadingProcessLost(Problem):
    code = "V0905"
    template = "a data loading worker has ended: {reason}"
    summary = "One of the `data.workers` was killed, usually because memory ran out."
    explanation = (
        "Samples are loaded by separate processes (`data.workers`). One that is killed, for example because memory "
        "ran out, or shared memory in a container (`--shm-size`), cannot deliver its batch, so the run stops; it can be "
        "resumed from its last checkpoint (`--resume`). Use fewer workers, or none: batches are the same for any number. "
        "A smaller `data.max_image_pixels` skips images that need much memory."
    )
    provoked_by = "`--set data.workers=64` on a machine with too little memory for it"
