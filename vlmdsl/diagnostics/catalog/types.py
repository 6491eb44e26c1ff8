"""V03: types and axes."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem


class WrongType(Problem):
    code = "V0301"
    template = "`{argument}` of `{function}` wants {wanted}, not {found}"
    summary = "an argument of the wrong type"
    explanation = (
        "Every argument has the types it accepts. A field is encoded by itself where features are wanted, a number "
        "stands where a scalar is wanted; nothing else is converted behind your back. The page of the function (`vlmdsl"
        " explain NAME`) lists its arguments."
    )
    bad = "contrast(image, text, targets=0.5)"
    good = "contrast(image, text, targets=paired)"


class OperatorTypes(Problem):
    code = "V0302"
    template = "`{operator}` does not combine {left} and {right}"
    summary = "operands that an operator cannot combine"
    explanation = (
        "Arithmetic works on scalars, scores (one number a sample), matrices with scalars and with each other, targets, "
        "losses and similarities; pooled features are added and subtracted. A matrix and a score do not combine by "
        "themselves, since nothing says whether the score belongs to the rows or to the columns. Comparisons give a "
        "condition a sample."
    )
    bad = "contrast(image + text, text)"
    good = "contrast(image, text)"


class AxesDisagree(Problem):
    code = "V0303"
    template = "the axes of {left} and {right} disagree"
    summary = "two values whose axes do not fit"
    explanation = (
        "Axes carry names: B samples, L words, P patches, D features, Q entries of a memory. Two values that meet must "
        "have the same axes; a matrix and its targets in particular. `B+B` are the columns of two matrices side by"
        " side (`unite`); a target over "
        "`B` fits them, since it says that the further columns are negatives."
    )
    bad = (
        "let z = similarity(image, text)\n"
        'minimize mean(cross_entropy(z / 0.1, targets=unite(paired, paired) / 2, along="rows"))'
    )
    good = (
        "let z = unite(similarity(image, text), similarity(image, text))\n"
        'minimize mean(cross_entropy(z / 0.1, targets=unite(paired, paired) / 2, along="rows"))'
    )


class PooledWhereTokensAreCompared(Problem):
    code = "V0304"
    template = "`{similarity}` compares tokens, but this value has been pooled"
    summary = "pooled features where tokens are compared"
    explanation = (
        "Some similarities (tokenmax, tokenmean) compare the tokens of two streams one by one; `.pooled` has thrown "
        "them away. Give the stream itself: the similarity takes `.tokens` by itself."
    )
    bad = "contrast(image.pooled, text, sim=tokenmax)"
    good = "contrast(image, text, sim=tokenmax)"


class TokensWherePooledIsCompared(Problem):
    code = "V0305"
    template = "`{similarity}` compares one vector a sample, but this value is its tokens"
    summary = "token features where pooled ones are compared"
    explanation = (
        "cosine, dot and euclidean compare one vector a sample. Give the stream itself (it takes `.pooled`), or choose "
        "a similarity that compares tokens: tokenmax, tokenmean."
    )
    bad = "contrast(image.tokens, text)"
    good = "contrast(image.tokens, text, sim=tokenmax)"


class NotCallable(Problem):
    code = "V0306"
    template = "{type} cannot be called"
    summary = "a call of something that is no function"
    explanation = (
        "Functions are primitives, `def`s, used recipes, encoders (`vision(image)`) and views. A field, a number or a "
        "`let` of one is not; perhaps an operator is missing before the bracket."
    )
    bad = "contrast(image(text), text)"
    good = "contrast(image, text)"


class NotIndexable(Problem):
    code = "V0307"
    template = "{type} cannot be indexed{reason}"
    summary = "an index of something that has no items, or out of range"
    explanation = (
        "A view set (`augment(image, n=2)`) and a tuple have items, counted from 0: `views[0]`. The index must be a "
        "whole number that is known when the recipe is compiled."
    )
    bad = "contrast(augment(image, n=2)[2], text)"
    good = "contrast(augment(image, n=2)[1], text)"


class NotALoss(Problem):
    code = "V0308"
    template = "{type} is not a loss"
    summary = "`minimize` of something that is no loss"
    explanation = (
        "What is minimized is one number: a criterion's result, or a sum of such. One number a sample must be reduced "
        "first (`mean(...)`), a matrix must go through a criterion (`cross_entropy`, `sigmoid_loss`)."
    )
    bad = "minimize score(image, text)"
    good = "minimize mean(1 - score(image, text))"


class ViewDoesNotApply(Problem):
    code = "V0309"
    template = "the view `{view}` fits none of the streams: {streams}"
    summary = "a view of a type that none of the streams has"
    explanation = (
        "`views=` applies each view to the stream of its type: `rewrite` to a Text, `augment` to an Image. A stream "
        "that is encoded already is no field any more, and takes no view."
    )
    bad = "contrast(image.pooled, text, views=augment())"
    good = "contrast(image, text, views=augment())"


class EncoderKind(Problem):
    code = "V0310"
    template = "`{encoder}` encodes {wanted}, not {found}"
    summary = "an encoder of another type"
    explanation = "`vision` encodes an Image, `language` a Text. An encoder derived from one takes what that one takes."
    bad = "contrast(vision(text), text)"
    good = "contrast(vision(image), text)"


class UnknownType(Problem):
    code = "V0311"
    template = "there is no type `{name}`"
    summary = "a type that does not exist"
    explanation = (
        "The fields of a signature have the types Image, Text, Label, Flag, Number, Key or Regions; a Scalar is one number "
        "a step that the caller of the objective gives. The parameters of a "
        "`def` may also name Encoded, Vec, Tokens, Distribution, Sim, Score, Target, Scalar, Loss, Similarity, View, "
        "Encoder, Condition and String."
    )
    bad = "vlo 1\nrecipe mine(image: Picture, text: Text)\nminimize contrast(image, text)"
    good = "vlo 1\nrecipe mine(image: Image, text: Text)\nminimize contrast(image, text)"


class NoEncoder(Problem):
    code = "V0312"
    template = "no encoder takes {type}"
    summary = "a field that cannot be encoded"
    explanation = (
        "Where features are wanted a field is encoded by the encoder of its type. Image and Text have one; a Label, a "
        "Flag or a Number does not. Labels make targets: `same(label)`; flags make conditions: `keep=`, `over=`."
    )
    bad = "vlo 1\nrecipe mine(image: Image, label: Label)\nminimize contrast(image, label)"
    good = "vlo 1\nrecipe mine(image: Image, text: Text, label: Label)\nminimize contrast(image, text, targets=same(label))"


class ContextNotTaken(Problem):
    code = "V0313"
    template = "`{subject} | {context}` is no stream that this version can encode"
    summary = "a stream given another, where no encoder takes a context"
    explanation = (
        "`text | image` is the text encoded or decoded with the image as context. It belongs to `generate`, `mlm` and "
        "`match`, and none of these is in this version of the kernel."
    )
    bad = "contrast(image, text | image)"
    good = "contrast(image, text)"


class ColumnsOfSeveralKinds(Problem):
    code = "V0315"
    template = "`{function}` asks the columns of {type}, which are of several kinds"
    summary = "the column direction of matrices side by side"
    explanation = (
        "`unite` puts the columns of matrices side by side, so that each row chooses among all of them. The other way "
        "round there is no question: the columns are of several kinds. Unite the transposed matrices for the other "
        "direction, as `nt_xent` of the library does."
    )
    bad = (
        "let z = unite(similarity(image, text), exclude_pairs(similarity(image, image))) / 0.1\n"
        'minimize mean(cross_entropy(z, targets=paired, along="columns"))'
    )
    good = (
        "let z = unite(similarity(image, text), exclude_pairs(similarity(image, image))) / 0.1\n"
        'minimize mean(cross_entropy(z, targets=paired, along="rows"))'
    )


class SetWhereOneIsWanted(Problem):
    code = "V0314"
    template = "{found} is a set of views where one value is wanted"
    summary = "a view set in a place that takes one value"
    explanation = (
        "A call over a view set is the mean over its views, but an operator or `minimize` takes one value. Index the "
        "set (`views[0]`), or call a function with it."
    )
    bad = "minimize augment(image, n=2)"
    good = "minimize contrast(augment(image, n=2), text)"


class NotAReference(Problem):
    code = "V0318"
    template = "a reference set holds what locked encoders make of fields, not {found}"
    summary = "something else where a reference set, or a column of one, is wanted"
    explanation = (
        "The samples of a reference set are kept aside by the data and encoded once, before the first step. So each column "
        "is a field as it is, not a view of one, through an encoder whose weights never change: "
        "`frozen(separate(vision, name=...))(image)`. `retrieve` takes such a set, with one column that is searched and at "
        "least one that is found."
    )
    bad = "contrast(reference(image, values=text)[0], text)"
    good = (
        "vlo 1\n"
        "recipe mine(image: Image, text: Text, key: Key)\n"
        'encoder eye = frozen(separate(vision, name="eye"))\n'
        "let refs = reference(eye(image), values=eye(image))\n"
        "let found = retrieve(eye(image), refs, without=key, k=2)\n"
        "minimize contrast(attend(image, keys=found[0], values=found[0]), text)"
    )
