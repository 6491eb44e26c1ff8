"""V05: programs that are well-formed and typed, but mean nothing useful."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem


class NothingToLearn(Problem):
    code = "V0501"
    template = "nothing in this objective can be learned: {reason}"
    summary = "an objective whose gradient is zero everywhere"
    explanation = (
        "No gradient reaches an encoder or a learned number: every stream is frozen or stopped, or the objective is a "
        "constant. Training would change nothing."
    )
    bad = "contrast(stop(image), stop(text), temperature=0.1)"
    good = "contrast(stop(image), text, temperature=0.1)"


class ZeroTerm(Problem):
    code = "V0502"
    template = "the term `{term}` has weight 0 and is left out"
    summary = "a term multiplied by zero"
    explanation = (
        "A term whose weight is 0 is removed together with the parameters that only it uses, so that no unused "
        "parameter breaks distributed training. If a knob is meant to switch it on, all is well."
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
        "Recipes are downloaded and run, so their size is bounded: the nodes of the graph, the views in a product of "
        "sets, the depth of calls. The bounds are in `vlmdsl/source/limits.py`."
    )
    bad = 'contrast(augment(image, n=10), rewrite(text, M=9, pick="each"))'
    good = 'contrast(augment(image, n=2), rewrite(text, M=4, pick="each"))'


class TargetsDoNotSumToOne(Problem):
    code = "V0505"
    template = "these targets sum to {total:g} in each row, not to 1"
    summary = "mixed targets whose shares do not add up"
    explanation = (
        "Each row of a target is a distribution. A mixture keeps that when its coefficients sum to 1: "
        "`hard * paired + (1 - hard) * same(label)`."
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
        "Both sides are the same view of the same field through the same encoder, so every pair agrees perfectly and "
        "the loss teaches nothing about it. Two views of it (`augment(image, n=2)`) or another field were probably "
        "meant."
    )
    bad = "contrast(image, image)"
    good = "contrast(augment(image), image)"
    severity = "warning"


class NothingHidden(Problem):
    code = "V0507"
    template = "`mlm` asks for hidden tokens, but nothing is hidden in this text"
    summary = "masked language modelling of a text without a mask"
    explanation = (
        "`mlm` asks the language tower for the tokens that `mask` chose; a text that is not masked leaves nothing to ask "
        "for. Mask it as the last of its views: `mlm(mask(text, random(15%)))`. To use the same masked text elsewhere too, "
        "as DeCLIP does in its contrastive terms, bind it to a name: two calls of `mask` draw twice."
    )
    bad = "minimize mlm(text)"
    good = "minimize mlm(mask(text, random(15%)))"


class ViewOfMaskedText(Problem):
    code = "V0508"
    template = "`{view}` cannot change a masked text: a mask comes last"
    summary = "a view of a text that is masked already"
    explanation = (
        "The views of a text work on its words, a mask hides its tokens, which are made of the words later. So a masked "
        "text can be encoded, but not be rewritten or masked again. Turn the two around: mask what the other view gives."
    )
    bad = "contrast(image, rewrite(mask(text, random(15%)), M=4))"
    good = "contrast(image, mask(rewrite(text, M=4), random(15%)))"


class HeadOnTeacher(Problem):
    code = "V0520"
    template = "a teacher of `{tower}` takes no head of its own"
    summary = "a projection or prediction head put on a teacher"
    explanation = (
        "A teacher is a running mean of another encoder's weights, and it gets no gradient. A head put on top of it would "
        "follow nothing, or learn alone on features that do not. Put the head on the encoder, and make the teacher of both: "
        "the copy then has the tower's weights and the head's. A predictor that only the student has goes on the student "
        "afterwards, which shares everything below it."
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
    template = "faults that are not listed: {count}"
    summary = "more faults than are told at once"
    explanation = (
        "A text with very many faults is most often no recipe, or has one slip that spoils all that follows. The first "
        "hundred are listed, errors before warnings. Mend them and check again."
    )
    provoked_by = "a text with more than a hundred faults"
    severity = "warning"


class TowerOfTwoKinds(Problem):
    code = "V0521"
    template = "the tower `{name}` is one of {first} and one of {second}"
    summary = "one name for towers of two kinds"
    explanation = (
        "Towers of one name share their weights, so they are of one kind: of images, of texts, or of both (`shared`). "
        "Every recipe has `vision`, a tower of images, and `language`, one of texts. Give one of the two another name."
    )
    bad = 'contrast(image, separate(language, name="vision")(text))'
    good = 'contrast(image, separate(language, name="captions")(text))'
