"""V03: types and axes."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem


class WrongType(Problem):
    code = "V0301"
    template = "`{argument}` of `{function}` expects {wanted}, not {found}"
    summary = "an argument of the wrong type"
    explanation = (
        "Every argument accepts certain types. Where features are expected, a field is encoded automatically, and a "
        "number is accepted as a scalar; there are no other implicit conversions. The page of the function (`vlmdsl "
        "explain NAME`) lists its arguments."
    )
    bad = "contrast(image, text, targets=0.5)"
    good = "contrast(image, text, targets=paired)"


class OperatorTypes(Problem):
    code = "V0302"
    template = "`{operator}` does not combine {left} and {right}"
    summary = "operands that an operator cannot combine"
    explanation = (
        "Arithmetic works on scalars, scores (one number per sample), matrices with scalars and with each other, targets, "
        "losses and similarities; pooled features can be added and subtracted. A matrix and a score do not combine, since "
        "the score could belong to the rows or to the columns. A comparison results in one condition per sample."
    )
    bad = "contrast(image + text, text)"
    good = "contrast(image, text)"


class AxesDisagree(Problem):
    code = "V0303"
    template = "the axes of {left} and {right} disagree"
    summary = "two values whose axes do not fit"
    explanation = (
        "Axes have names: B samples, L tokens, P patches, D features, Q entries of a queue. Two values that are combined "
        "must have the same axes, in particular a matrix and its targets. `B+B` are the columns of two matrices side by "
        "side (`unite`); a target over `B` is allowed there: the additional columns are negatives."
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
        "Some similarities (tokenmax, tokenmean) compare the tokens of two streams one by one; pooled features no longer "
        "have them. Pass the stream itself: the similarity reads its `.tokens`."
    )
    bad = "contrast(image.pooled, text, sim=tokenmax)"
    good = "contrast(image, text, sim=tokenmax)"


class TokensWherePooledIsCompared(Problem):
    code = "V0305"
    template = "`{similarity}` compares one vector per sample, but this value has one per token"
    summary = "token features where pooled ones are compared"
    explanation = (
        "cosine, dot and euclidean compare one vector per sample. Pass the stream itself (the similarity reads its "
        "`.pooled`), or choose a similarity that compares tokens: tokenmax, tokenmean."
    )
    bad = "contrast(image.tokens, text)"
    good = "contrast(image.tokens, text, sim=tokenmax)"


class NotCallable(Problem):
    code = "V0306"
    template = "{type} cannot be called"
    summary = "a call of something that is not a function"
    explanation = (
        "Functions are primitives, `def`s, used recipes, encoders (`vision(image)`) and views. A field, a number or a "
        "`let` of one is not; maybe an operator is missing before the bracket."
    )
    bad = "contrast(image(text), text)"
    good = "contrast(image, text)"


class NotIndexable(Problem):
    code = "V0307"
    template = "{type} cannot be indexed{reason}"
    summary = "an index of something that has no items, or out of range"
    explanation = (
        "A set of views (`augment(image, n=2)`) and a tuple have items, counted from 0: `views[0]`. The index must be an "
        "integer constant."
    )
    bad = "contrast(augment(image, n=2)[2], text)"
    good = "contrast(augment(image, n=2)[1], text)"


class NotALoss(Problem):
    code = "V0308"
    template = "{type} is not a loss"
    summary = "`minimize` of something that is not a loss"
    explanation = (
        "A loss is one number: the result of a criterion, or a sum of them. A score, one number per sample, has to be "
        "reduced first (`mean(...)`); a matrix needs a criterion (`cross_entropy`, `sigmoid_loss`)."
    )
    bad = "minimize score(image, text)"
    good = "minimize mean(1 - score(image, text))"


class ViewDoesNotApply(Problem):
    code = "V0309"
    template = "the view `{view}` applies to none of the streams: {streams}"
    summary = "a view of a type that none of the streams has"
    explanation = (
        "`views=` applies each view to the stream of its type: `rewrite` to a Text, `augment` to an Image. A stream that "
        "is already encoded is not a field any more, and has no views."
    )
    bad = "contrast(image.pooled, text, views=augment())"
    good = "contrast(image, text, views=augment())"


class EncoderKind(Problem):
    code = "V0310"
    template = "`{encoder}` encodes {wanted}, not {found}"
    summary = "an encoder of another type"
    explanation = "`vision` encodes an Image, `language` a Text. An encoder derived from another accepts the same type."
    bad = "contrast(vision(text), text)"
    good = "contrast(vision(image), text)"


class UnknownType(Problem):
    code = "V0311"
    template = "there is no type `{name}`"
    summary = "a type that does not exist"
    explanation = (
        "The fields of a signature have the types Image, Text, Label, Flag, Number, Key or Regions; a Scalar is one "
        "number per step, passed by the caller of the objective. The parameters of a `def` may also have the types "
        "Encoded, Vec, Tokens, Distribution, Sim, Score, Target, Scalar, Loss, Similarity, View, Encoder, Condition and "
        "String."
    )
    bad = "vlo 1\nrecipe mine(image: Picture, text: Text)\nminimize contrast(image, text)"
    good = "vlo 1\nrecipe mine(image: Image, text: Text)\nminimize contrast(image, text)"


class NoEncoder(Problem):
    code = "V0312"
    template = "no encoder takes {type}"
    summary = "a field that cannot be encoded"
    explanation = (
        "Where features are expected, a field is encoded by the encoder of its type. Image and Text have one; Label, Flag "
        "and Number do not. Labels are for targets: `same(label)`; flags for conditions: `keep=`, `over=`."
    )
    bad = "vlo 1\nrecipe mine(image: Image, label: Label)\nminimize contrast(image, label)"
    good = "vlo 1\nrecipe mine(image: Image, text: Text, label: Label)\nminimize contrast(image, text, targets=same(label))"


class ContextNotTaken(Problem):
    code = "V0313"
    template = "`{subject} | {context}` is not a text given an image"
    summary = "a stream with another one as its context"
    explanation = (
        "`text | image` is the text with the image as context: the fusion module (`fuse`) lets its tokens attend to those "
        "of the image. The text stands on the left, the image, or what a pooler gives of it, on the right, each encoded by "
        "a tower or taken from another sample (`take`), not by a head, and not yet fused."
    )
    bad = "mlm(image | mask(text, random(15%)))"
    good = "mlm(mask(text, random(15%)) | image)"


class ColumnsOfSeveralKinds(Problem):
    code = "V0315"
    template = "`{function}` along the columns of {type}, which come from different matrices"
    summary = "the column direction of concatenated matrices"
    explanation = (
        "`unite` puts the columns of matrices side by side, so that each row chooses among all of them. There is no loss "
        "over its columns: they belong to different matrices. For the other direction, unite the transposed matrices, as "
        "`nt_xent` of the library does."
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
    template = "{found} is a set of views, but one value is expected"
    summary = "a set of views where one value is expected"
    explanation = (
        "A call over a set of views is the mean over its views, but an operator or `minimize` needs one value. Index the "
        "set (`views[0]`), or call a function with it."
    )
    bad = "minimize augment(image, n=2)"
    good = "minimize contrast(augment(image, n=2), text)"


class NotAReference(Problem):
    code = "V0318"
    template = "a column of a reference set must be a field encoded by a frozen tower, not {found}"
    summary = "something else where a reference set, or a column of one, is expected"
    explanation = (
        "The samples of a reference set are set aside from the data and encoded once, before the first step. So each "
        "column is a field itself, not a view of one, encoded by a tower whose weights never change: "
        "`frozen(separate(vision, name=...))(image)`. `retrieve` takes such a set, with one column to search and at least "
        "one to return."
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


class NoClassToken(Problem):
    code = "V0319"
    template = "the text decoder `{decoder}` has no token that collects a text, so it gives no pooled features"
    summary = "pooled features of a text decoder without a class token"
    explanation = (
        "The states of a text decoder are for predicting the next token. One vector per text, to compare with images, comes "
        'from a class token that is appended to the text (CoCa): `text_decoder(class_token="appended", cross_from=50%)`. '
        "The blocks that it goes through, the first ones, do not see the context."
    )
    bad = (
        "vlo 1\n"
        "recipe mine(image: Image, text: Text)\n"
        "encoder captioner = text_decoder(depth=2)\n"
        "minimize contrast(image, captioner(text, image))"
    )
    good = (
        "vlo 1\n"
        "recipe mine(image: Image, text: Text)\n"
        'encoder captioner = text_decoder(depth=2, cross_from=50%, class_token="appended")\n'
        "minimize contrast(image, captioner(text, image))"
    )
