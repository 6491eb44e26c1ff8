"""How the towers of a run are fine-tuned: parts that keep their weights, low-rank adapters, and the depth of each weight."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from vlmdsl.diagnostics.suggest import suggestion
from vlmdsl.runtime.modules.towers import Encoder
from vlmdsl.runtime.modules.towers.pretrained import library, refused
from vlmdsl.schema import LoraConfig, ModelConfig

__all__ = ["adapt", "blocks_of", "depths", "merged", "rates", "without_adapters"]

_NEW = ("pooled_projection", "token_projection", "vocabulary_head", "region_stem", "mask_token")
"""Of a tower: what is new in a run that fine-tunes it."""
_BEHIND = ("proj", "projection", "norm")
_BASE = ".base_layer."
"""What peft calls the weights that it adapts."""


def adapt(encoders: Mapping[str, Encoder], config: ModelConfig) -> None:
    """Freeze parts of towers (`model.freeze`) and give them adapters (`model.lora`).

    Raises `DiagnosticError`: V0831 for a part that a tower does not have, V0901 without peft.
    """
    for name, encoder in encoders.items():
        if name in config.freeze:
            _freeze(name, encoder, config.freeze[name])
        if name in config.lora:
            _adapters(name, encoder, config.lora[name])


def blocks_of(encoder: nn.Module) -> tuple[str, nn.ModuleList | nn.Sequential] | None:
    """The blocks of a tower and what they are called: of its lists of modules of one class the one with the most weights;
    None if it has none."""
    lists = [
        (name, part)
        for name, part in encoder.named_modules()
        if isinstance(part, nn.ModuleList | nn.Sequential) and len(part) and len({type(child) for child in part}) == 1
    ]
    sizes = [sum(parameter.numel() for parameter in part.parameters()) for _, part in lists]
    return lists[sizes.index(max(sizes))] if lists else None


def depths(encoder: nn.Module) -> tuple[dict[str, int], int]:
    """How deep each parameter of a tower is, and how deep the deepest: 0 before the blocks, k in block k, then one more."""
    own = blocks_of(encoder)
    names = [name for name, _ in encoder.named_parameters()]
    if own is None:
        return dict.fromkeys(names, 0), 0
    prefix, blocks = own
    before = _before(encoder, prefix)
    deep = {name: 0 if name in before else len(blocks) + 1 for name in names}
    for number in range(len(blocks)):
        deep |= {name: number + 1 for name in names if name.startswith(f"{prefix}.{number}.")}
    return deep, len(blocks) + 1


def _before(encoder: nn.Module, prefix: str) -> set[str]:
    """The parameters that come before the blocks: declared before them, or by a module that holds them, as embeddings and
    positions are, but for projections and norms."""
    names = [name for name, _ in encoder.named_parameters()]
    first = next((place for place, name in enumerate(names) if name.startswith(f"{prefix}.")), len(names))
    before = names[:first]
    return {name for name in before if not name.endswith(_BEHIND) and not name.startswith(_NEW)}


def _freeze(tower: str, encoder: Encoder, what: int | tuple[str, ...]) -> None:
    names = [name for name, _ in encoder.named_parameters()]
    if isinstance(what, int):
        deep, deepest = depths(encoder)
        if what >= max(deepest, 1):
            problem = f"has {max(deepest - 1, 0)} blocks, of which {what} are to be frozen"
            raise refused(tower, problem, "name fewer blocks, or patterns of parameters")
        chosen = {name for name in names if deep[name] <= what}
    else:
        chosen = set()
        for pattern in what:
            matching = {name for name in names if fnmatchcase(name, pattern)}
            if not matching:
                parts = [name.partition(".")[0] + "*" for name in names]
                raise refused(tower, f"has no parameter called `{pattern}`", suggestion(pattern, parts, "its parts"))
            chosen |= matching
    if chosen == set(names):
        help = f"write `frozen({tower})` in the recipe, which is planned so"
        raise refused(tower, "is frozen as a whole by `model.freeze`", help)
    for name, parameter in encoder.named_parameters():
        if name in chosen:
            parameter.requires_grad_(False)
    encoder.notes += (f"keeps {len(chosen)} of its {len(names)} weights as they are",)


def _adapters(tower: str, encoder: Encoder, config: LoraConfig) -> None:
    peft: Any = library("peft", "lora", "`model.lora`")
    trunk: Any = getattr(encoder, "model", encoder)
    own = blocks_of(trunk)
    names = (
        [] if own is None else [f"{own[0]}.{name}" for name, part in own[1].named_modules() if isinstance(part, nn.Linear)]
    )
    patterns = config.targets or ("*",)
    chosen = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not chosen:
        last = sorted({name.rpartition(".")[2] for name in names})
        raise refused(tower, f"has no linear map called `{patterns[0]}`", suggestion(patterns[0], last, "its linear maps"))
    settings = peft.LoraConfig(
        r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout, target_modules=chosen, bias="none"
    )
    learned = {name for name, parameter in encoder.named_parameters() if parameter.requires_grad and name.startswith(_NEW)}
    peft.inject_adapter_in_model(settings, trunk)
    for name, parameter in encoder.named_parameters():
        if name in learned:
            parameter.requires_grad_(True)
    count = sum(parameter.numel() for parameter in trunk.parameters() if parameter.requires_grad)
    encoder.notes += (f"has adapters of rank {config.rank} on {len(chosen)} linear maps, {count:,} weights",)


def without_adapters(name: str) -> str:
    """What a weight is called in a tower without adapters.

    >>> without_adapters("encoders.vision.query.base_layer.weight")
    'encoders.vision.query.weight'
    """
    return name.replace(_BASE, ".")


def merged(module: nn.Module) -> None:
    """Add what adapters learnt to the weights that they adapt, and take them away: the same outputs, by plain modules."""
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if hasattr(child, "base_layer") and hasattr(child, "merge"):
                layer: Any = child
                layer.merge()
                setattr(parent, name, layer.get_base_layer())


def rates(model: nn.Module, decay: float | None, factors: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    """The factor of the learning rate of each parameter of the towers of a model, by its name there: that of the tower, and
    of layers `decay` for each one from the last to it."""
    for tower, encoder in getattr(model, "encoders", {}).items():
        deep, deepest = depths(encoder) if decay is not None else ({}, 0)
        for name, _ in encoder.named_parameters():
            layer = 1.0 if decay is None else decay ** (deepest - deep[name])
            yield f"encoders.{tower}.{name}", factors.get(tower, 1.0) * layer
