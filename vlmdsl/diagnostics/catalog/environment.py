"""V0901 to V0909: what the environment does not have: packages and pretrained models."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = ["PackageMissing", "PretrainedModelMissing"]


class PackageMissing(Problem):
    code = "V0901"
    template = "{what} needs the package `{package}`, which is not installed"
    summary = "An optional package is needed for what was asked."
    explanation = (
        "What every run needs is installed with vlmdsl. Adapters to other libraries are extras, so that nobody has to "
        "install what they do not use: `pip install 'vlmdsl[hf]'` adds `transformers` for encoders and tokenizers named "
        "`hf:...`, `pip install 'vlmdsl[ann]'` adds `faiss-cpu` for reference sets that faiss is to search "
        "(`data.reference_search=faiss`). If the package is installed, it is probably in another environment than the "
        "`vlmdsl` that ran; `python -m pip show vlmdsl` and `python -m pip show PACKAGE` must name the same folder."
    )
    provoked_by = "`--set model.image_encoder=hf:google/vit-base-patch16-224` without transformers installed"


class PretrainedModelMissing(Problem):
    code = "V0902"
    template = "the pretrained model `{name}` cannot be loaded"
    summary = "A model named `hf:...` was not found, or its files cannot be used."
    explanation = (
        "`hf:NAME` names a folder on this machine, or else a model of the Hugging Face hub, which is taken from the local "
        "cache or downloaded. Without a connection only folders and cached models can be used; a private model needs a "
        "login first. The folder needs a `config.json` and weights in the safetensors format; weights in the older pickle "
        "format are refused, because reading them can run any code, and so are models that bring code of their own. The "
        "note under the message is what `transformers` said."
    )
    provoked_by = "`--set model.text_encoder=hf:./nowhere`"
