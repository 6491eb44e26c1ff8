"""V05: programs that are well-formed and typed, but mean nothing useful."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem


class NothingToLearn(Problem):
    code = "V0501"
    template = "nothing in this objective can be learned: {reason}"
    summary = "an objective whose gradient is zero everywhere"
    explanation = (
        "No gradient reaches an encoder or a learned parameter: every stream is frozen or stopped, or the objective is "
        "constant. Training would change nothing."
    )
    bad = "contrast(stop(image), stop(text), temperature=0.1)"
    good = "contrast(stop(image), text, temperature=0.1)"


class ZeroTerm(Problem):
    code = "V0502"
    template = "the term `{term}` has weight 0 and is left out"
    summary = "a term multiplied by zero"
    explanation = (
        "A term whose weight is 0 is removed together with the parameters that only it uses, so that no unused parameter "
        "breaks distributed training. A term that a hyper-parameter of 0 switches off is not reported."
    )
    bad = (
        "vlo 1\n"
        "recipe mine(image: Image, text: Text)\n"
        "minimize {\n"
        "  main: contrast(image, text)\n"
        "  extra: 0 * contrast(image, text)\n"
        "}"
    )
    good = (
        "vlo 1\n"
        "recipe mine(image: Image, text: Text)\n"
        "minimize {\n"
        "  main: contrast(image, text)\n"
        "  extra: 0.1 * contrast(image, text)\n"
        "}"
    )
    severity = "warning"


class UnusedField(Problem):
    code = "V0503"
    template = "the field `{name}` is never used"
    summary = "a field of the signature that the objective does not read"
    explanation = "Data would be read and prepared for nothing. Remove the field from the signature, or use it."
    bad = "vlo 1\nrecipe mine(image: Image, text: Text, label: Label)\nminimize contrast(image, text)"
    good = "vlo 1\nrecipe mine(image: Image, text: Text)\nminimize contrast(image, text)"
    severity = "warning"


class TooLarge(Problem):
    code = "V0504"
    template = "the objective grows too large: {reason}"
    summary = "more nodes, views or nested calls than a recipe may have"
    explanation = (
        "Recipes are downloaded and run, so their size is limited: the nodes of the graph, the views in a product of "
        "sets, the depth of calls. The limits are in `vlmdsl/source/limits.py`."
    )
    bad = 'contrast(augment(image, n=10), rewrite(text, M=9, pick="each"))'
    good = 'contrast(augment(image, n=2), rewrite(text, M=4, pick="each"))'


class TargetsDoNotSumToOne(Problem):
    code = "V0505"
    template = "these targets sum to {total:g} in each row, not to 1"
    summary = "mixed targets whose coefficients do not sum to 1"
    explanation = (
        "Each row of a target is a distribution. A mixture of targets is one too if its coefficients sum to 1: `hard * "
        "paired + (1 - hard) * same(label)`."
    )
    bad = (
        "vlo 1\n"
        "recipe mine(image: Image, text: Text, label: Label)\n"
        "minimize contrast(image, text, targets=paired + same(label))"
    )
    good = (
        "vlo 1\n"
        "recipe mine(image: Image, text: Text, label: Label)\n"
        "minimize contrast(image, text, targets=0.5 * paired + 0.5 * same(label))"
    )


class OneStreamWithItself(Problem):
    code = "V0506"
    template = "this compares a stream with itself"
    summary = "a similarity of one stream with the very same stream"
    explanation = (
        "Both sides are the same view of the same field through the same encoder, so every pair agrees perfectly and the "
        "loss learns nothing from it. Compare two views (`augment(image, n=2)`) or use another field."
    )
    bad = "contrast(image, image)"
    good = "contrast(augment(image), image)"
    severity = "warning"


class NothingHidden(Problem):
    code = "V0507"
    template = "`mlm` predicts masked tokens, but this text has none"
    summary = "masked language modelling of a text that is not masked"
    explanation = (
        "`mlm` predicts the tokens that `mask` selected; in a text that is not masked there is nothing to predict. Mask "
        "it after all other views: `mlm(mask(text, random(15%)))`. To use the same masked text in other terms too, as "
        "DeCLIP does in its contrastive ones, bind it to a name: two calls of `mask` draw twice."
    )
    bad = "minimize mlm(text)"
    good = "minimize mlm(mask(text, random(15%)))"


class ViewOfMaskedText(Problem):
    code = "V0508"
    template = "`{view}` cannot be applied to a masked text: `mask` comes last"
    summary = "a view of a text that is masked already"
    explanation = (
        "The other views of a text change its words; `mask` replaces its tokens, after the text has been tokenized. So a "
        "masked text can be encoded, but neither rewritten nor masked again. Swap the two: mask the result of the other "
        "view."
    )
    bad = "contrast(image, rewrite(mask(text, random(15%)), M=4))"
    good = "contrast(image, mask(rewrite(text, M=4), random(15%)))"


class HeadOnTeacher(Problem):
    code = "V0520"
    template = "a teacher of `{tower}` cannot have its own head"
    summary = "a projection or prediction head put on a teacher"
    explanation = (
        "A teacher is an exponential moving average of another encoder's weights, and it has no gradient. A head on top "
        "of it would have no weights to follow. Put the head on the encoder, and derive the teacher from that: the copy "
        "then averages the tower and the head. A predictor that only the student has is added to the student afterwards, "
        "which shares everything below it."
    )
    bad = (
        "vlo 1\n"
        "recipe mine(image: Image)\n"
        "encoder teacher = project(ema(vision))\n"
        "let views = augment(image, n=2)\n"
        "minimize regress(views[0], teacher(views[1]))"
    )
    good = (
        "vlo 1\n"
        "recipe mine(image: Image)\n"
        "encoder student = project(vision)\n"
        "encoder teacher = ema(student)\n"
        "let views = augment(image, n=2)\n"
        "minimize regress(student(views[0]), teacher(views[1]))"
    )


class MoreFaults(Problem):
    code = "V0509"
    template = "errors and warnings that are not listed: {count}"
    summary = "more errors and warnings than are reported at once"
    explanation = (
        "A text with very many errors is usually not a recipe, or has one mistake that invalidates everything after it. "
        "The first hundred are listed, errors before warnings. Fix them and check again."
    )
    provoked_by = "a text with more than a hundred errors"
    severity = "warning"


class NeverTrained(Problem):
    code = "V0510"
    template = "no step changes {part}: no gradient reaches it"
    summary = "a module or a learned number that is used and not trained"
    explanation = (
        "Its weights stay as they were drawn: it is used only where no gradient flows, such as below `stop`, in a "
        "condition, in a queue, to mine negatives or to match boxes. What it computes then depends on chance. Use it in a "
        "term too, as methods that mine negatives compare the same features by a contrast, or write `frozen(...)` where its "
        "weights are loaded (`model.init`) and are to stay."
    )
    bad = (
        "vlo 1\n"
        "recipe mine(image: Image, text: Text)\n"
        "encoder quality = project(vision, out=64)\n"
        "minimize contrast(image, text, queries=score(quality(image), quality(image)) > 0)"
    )
    good = (
        "vlo 1\nrecipe mine(image: Image, text: Text)\nminimize contrast(image, text, weight=exp(stop(score(image, text))))"
    )
    severity = "warning"


class TowerOfTwoKinds(Problem):
    code = "V0521"
    template = "the tower `{name}` encodes {first} here and {second} there"
    summary = "one name for towers of different types"
    explanation = (
        "Towers with the same name share their weights, so they have one type: for images, for texts, or for both "
        "(`shared`). Every recipe has `vision`, a tower for images, and `language`, one for texts. Rename one of the two."
    )
    bad = 'contrast(image, separate(language, name="vision")(text))'
    good = 'contrast(image, separate(language, name="captions")(text))'
