"""BLEU and CIDEr: how many words, in a row, written captions have in common with references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.environment import PackageMissing
from vlmdsl.source import Span

__all__ = ["overlap"]


def overlap(captions: Sequence[str], references: Sequence[str]) -> Mapping[str, float]:
    """`BLEU` of the captions, one reference each, by sacrebleu, and `CIDEr` by pycocoevalcap, as a share: 1.433 is what
    papers call 143.3.

    Raises `DiagnosticError` (V0901) where one of the packages is missing.
    """
    try:
        from pycocoevalcap.cider.cider import Cider
        from sacrebleu import corpus_bleu
    except ImportError as fault:
        package = "sacrebleu" if "sacrebleu" in str(fault) else "pycocoevalcap"
        help = ("install it with `pip install 'vlmdsl[captions]'`", "or leave out `evaluation.caption_overlap=true`")
        place = Span("<command line>", 0, 0)
        raise DiagnosticError((PackageMissing.at(place, what="BLEU and CIDEr", package=package, help=help),)) from fault
    bleu = corpus_bleu(list(captions), [list(references)]).score / 100
    pairs = [{place: [text] for place, text in enumerate(texts)} for texts in (references, captions)]
    cider, _ = Cider().compute_score(*pairs)
    return {"BLEU": float(bleu), "CIDEr": float(cider)}
