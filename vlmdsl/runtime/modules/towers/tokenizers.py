"""The tokenizer that a name stands for: that of a file, or of a model of `transformers` or `open_clip`."""

from __future__ import annotations

import json

from tokenizers import Tokenizer as Backend

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import TokenizerUnusable
from vlmdsl.diagnostics.catalog.environment import PackageMissing
from vlmdsl.runtime.modules.towers.open_clip_model import open_clip_tokenizer
from vlmdsl.runtime.tokenizer import Tokenizer
from vlmdsl.source import Span
from vlmdsl.source.regular_files import BadFile, read_regular

__all__ = ["load_tokenizer"]

_PLACE = Span("<command line>", 0, 0)
_FEWEST_WORDS = 2
_LARGEST_FILE = 2**28


def load_tokenizer(name: str) -> Tokenizer:
    """The tokenizer that `name` names: the path of a `tokenizer.json`, `hf:NAME` (`transformers`) or `open_clip:NAME`.

    Raises `DiagnosticError`.
    """
    if name.startswith("hf:"):
        return _from_transformers(name)
    if name.startswith("open_clip:"):
        return open_clip_tokenizer(name.removeprefix("open_clip:"))
    try:
        text = read_regular(name, _LARGEST_FILE).decode("utf-8")
    except BadFile as fault:
        raise _unusable(name, fault.reason) from fault
    except UnicodeDecodeError as fault:
        raise _unusable(name, "it is not a `tokenizer.json`") from fault
    try:
        if "tokenizer" in json.loads(text):
            return Tokenizer.from_json(text)
        backend = Backend.from_str(text)
    except Exception as fault:
        # The library raises plain `Exception` for a file that is not a tokenizer.
        raise _unusable(name, "it is not a `tokenizer.json`") from fault
    padding = backend.padding
    return Tokenizer(backend, padding["pad_id"] if padding else _known_pad(backend))


def _from_transformers(name: str) -> Tokenizer:
    try:
        from transformers import AutoTokenizer
    except ImportError as fault:
        help = "install it with `pip install 'vlmdsl[hf]'`"
        raise DiagnosticError((PackageMissing.at(_PLACE, what=name, package="transformers", help=(help,)),)) from fault
    try:
        loaded = AutoTokenizer.from_pretrained(name.removeprefix("hf:"), trust_remote_code=False)
    except Exception as fault:
        # The library raises whatever a damaged or foreign file provokes.
        raise _unusable(name, str(fault).splitlines()[0] if str(fault) else "it cannot be loaded") from fault
    if not getattr(loaded, "is_fast", False):
        raise _unusable(name, "it has no `tokenizer.json`")
    backend = Backend.from_str(loaded.backend_tokenizer.to_str())
    tokenizer = Tokenizer(backend, loaded.pad_token_id, "left" if loaded.padding_side == "left" else "right")
    if len(tokenizer.words()) < _FEWEST_WORDS:
        # The library makes an empty one, to which all texts are alike, where only the model's configuration is there.
        raise _unusable(name, "there are no files of a tokenizer")
    return tokenizer


def _known_pad(backend: Backend) -> int | None:
    """The id of a padding mark under one of its usual names."""
    ids = (backend.token_to_id(name) for name in ("<pad>", "[PAD]", "<|padding|>"))
    return next((number for number in ids if number is not None), None)


def _unusable(name: str, reason: str) -> DiagnosticError:
    help = "name another: `model.tokenizer=hf:NAME` or the path of a `tokenizer.json`"
    return DiagnosticError((TokenizerUnusable.at(_PLACE, given=name, reason=reason, help=(help,)),))
