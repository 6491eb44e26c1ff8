"""`@vlmdsl.primitive`: similarities, criteria, targets, masks and modules from outside the package.

- `similarity`: `(x [R, D], y [C, D]) -> [R, C]`. `level` is what it compares: of `tokens` it gets `TokenFeatures`, with
  `values` [R, L, D] and `mask` [R, L] (None: all are tokens), and may return a pair (rows, columns) of matrices. Columns are
  gathered for it when there are several processes.
- `criterion`: one number per sample, [b]. `takes` names the kind of each parameter: `Vec` [b, D], `Tokens`
  (`TokenFeatures`), `Score` [b], `Label` [b]; or `Sim`, alone or with a `Target`: then the first parameter is `Rows`, with
  `values` [b, N] of this process's rows against everybody's columns, 0 where an entry is not a candidate, `candidates`
  [b, N] and `pairs` [b, N], both bool, and the second is the shares [b, N] of its target.
  With `takes=("Logits", "Codes")`: `(logits [N, V], targets [N]) -> [N]`, one number per token that counts, of which the
  loss is the mean over all processes: `NAME(linear(mask(text, m)), text, at=m)`, as `token_loss`, with its `where` and
  `weight`.
- `target`: `(x [R, ...], y [C, ...]) -> [R, C]`, not negative: how much row i should choose column j. `takes` names one
  kind, `Label`, `Score` or `Vec`. Each direction is scaled to sum to 1, and no gradient passes; with the law `swap` it is
  its own transpose.
- `mask`: `(selectable [L], random, *, share: float = ...) -> [L]`, numpy arrays of bool, for `mask(text, NAME(15%))`: which
  tokens of one text are selected, the share `share` on average. `random` is a `numpy.random.Generator` of this sample and
  epoch. The workers of the loader call it. With `takes=("Image",)` it is a mask of patches, for `drop(image, NAME(50%))`:
  `((rows, columns), random, *, share: float = ...) -> [rows, columns]`, float; the share of the patches with the largest
  numbers is dropped, so that every image keeps as many.
- `fusion`: `(states_width, context_width, *, ...) -> nn.Module`, what encodes a text given an image, `text | image`, in a
  recipe that says `encoder fusion = NAME(...)`. The module is called with (states [b, L, states_width], mask [b, L] or None,
  context [b, K, context_width], context_mask [b, K] or None) and returns
  `vlmdsl.runtime.modules.SequenceFeatures(tokens [b, L, W], mask, pooled [b, W])`, finite whatever padding holds, and for
  each sample what it returns for that sample alone.
- `module`: `(request) -> Encoder`, a family of towers for fields of the kind that `takes` names, `Image` or `Text`; a run
  chooses one by `model.image_encoder=NAME:PRESET`. For a kind of a plug-in (`vlmdsl.types.register_field_kind`, with a
  `token_axis`) it is also a word: `encoder ears = NAME()`, then `ears(x)`; `request.facts` is what the kind's `probe`
  reported, and `request.name` is `default` unless `model.towers` says another preset.

What a function of tensors returns on several processes is exact where it reads its own samples only, as all but `target`
and `similarity` do; these get what the columns have from all processes.
"""

from vlmdsl.primitives.plugins.decorator import primitive
from vlmdsl.primitives.plugins.function import IMPLEMENTATIONS
from vlmdsl.primitives.plugins.modules import MODULES, ModuleFamily

__all__ = ["IMPLEMENTATIONS", "MODULES", "ModuleFamily", "primitive"]
