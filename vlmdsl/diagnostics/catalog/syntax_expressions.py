"""V0112 to V0121: brackets, operators, calls and what may follow what."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = [
    "BrokenLine", "ChainedComparison", "DuplicateName", "MissingComma", "MissingOperand", "PositionalAfterKeyword",
    "RequiredAfterDefault", "UnclosedBracket", "UnexpectedToken", "UnmatchedBracket",
]  # fmt: skip


class UnclosedBracket(Problem):
    code = "V0112"
    template = "`{bracket}` is never closed"
    summary = "An opening bracket without its closing one."
    explanation = (
        "Every `(`, `[` and `{` needs its `)`, `]` or `}`. The message points at the opening bracket and at the place "
        "where the closing one is missing at the latest: the end of the file, another kind of closing bracket, or a "
        "keyword that can only begin a statement. The missing bracket belongs somewhere between the two places; vlmdsl "
        "does not guess where."
    )
    bad = "minimize contrast(image, text\n"
    good = "minimize contrast(image, text)\n"


class UnmatchedBracket(Problem):
    code = "V0113"
    template = "unmatched closing `{bracket}`"
    summary = "A closing bracket without an opening one."
    explanation = (
        "This bracket closes one that was never opened. Remove it, or add the opening bracket that it should close. "
        "Brackets are counted from the start of the statement, so a statement before this one is not the cause."
    )
    bad = "minimize contrast(image, text))\n"
    good = "minimize contrast(image, text)\n"


class UnexpectedToken(Problem):
    code = "V0114"
    template = "unexpected {found}"
    summary = "A symbol or word that the grammar does not allow at this place."
    explanation = (
        "The statement was parsed up to the place shown, and what follows cannot continue it. The message lists what "
        "would be allowed there. The cause is sometimes a little earlier: a missing operator, quote or bracket. Each "
        "statement is on its own line; an expression can continue on the next line only inside brackets."
    )
    bad = "minimize contrast(image, , text)\n"
    good = "minimize contrast(image, text)\n"


class MissingComma(Problem):
    code = "V0115"
    template = "a comma or an operator is missing before {found}"
    summary = "Two values side by side with nothing between them."
    explanation = (
        "Arguments, parameters and the items of a tuple are separated by commas, even if each is on its own line. If one "
        "value was intended, an operator is missing: products are written with an asterisk, `2 * tau`. Only the terms of "
        "a `minimize` block may be separated by line breaks alone."
    )
    bad = "minimize contrast(image text)\n"
    good = "minimize contrast(image, text)\n"


class MissingOperand(Problem):
    code = "V0116"
    template = "{what} is missing after {sign}"
    summary = "Something required is missing at the end of a statement."
    explanation = (
        "An operator needs a value on its right, `let name =` needs an expression, `let ... in` needs a body, and the "
        "keywords `cite`, `use`, `recipe` and `minimize` need their operands. The statement ends too early. The value of "
        "a `let` or `def` may begin on the line after its `=`, but it cannot be left out."
    )
    bad = "minimize contrast(image, text) +\n"
    good = "minimize contrast(image, text)\n"


class BrokenLine(Problem):
    code = "V0117"
    template = "this expression ends at `{sign}` and continues on another line"
    summary = "An expression over several lines without brackets."
    explanation = (
        "A statement ends with its line. A line break is white space only inside `(` and `[`, after the `=` of a "
        "definition and after `in`. A long sum is written in parentheses, with its operators at the start or at the end "
        "of lines; terms that should be logged under their own names go into a `minimize { ... }` block, one per line."
    )
    bad = "minimize 0.5 * contrast(image, text)\n  + 0.5 * contrast(image, text)\n"
    good = "minimize (\n  0.5 * contrast(image, text)\n  + 0.5 * contrast(image, text)\n)\n"


class ChainedComparison(Problem):
    code = "V0118"
    template = "comparisons cannot be chained"
    summary = "A comparison of a comparison, such as `a < b < c`."
    explanation = (
        "A comparison results in a truth value for each sample, and truth values have no order, so `0 < s < 1` would not "
        "mean what it means in mathematics. Choose with two nested `where` calls, or bound the value with `clamp(s, 0, "
        "1)`, `min` or `max`."
    )
    bad = "let s = score(image, text)\n\nminimize contrast(image, text, weight=where(0 < s < 1, s, 1))\n"
    good = "let s = score(image, text)\n\nminimize contrast(image, text, weight=where(s < 1, s, 1))\n"


class PositionalAfterKeyword(Problem):
    code = "V0119"
    template = "a positional argument follows the keyword argument `{name}`"
    summary = "Subjects come first, keyword arguments after them."
    explanation = (
        "The subjects of a call (what it is applied to) are positional and come first; everything else is given by "
        "keyword, in any order. Move the positional argument to the front, or give it its keyword."
    )
    bad = "minimize contrast(image, sim=cosine, text)\n"
    good = "minimize contrast(image, text, sim=cosine)\n"


class DuplicateName(Problem):
    code = "V0120"
    template = "the {what} `{name}` is given twice"
    summary = "Two parameters, arguments or terms with one name."
    explanation = (
        "Within one parameter list, one call or one `minimize` block a name may occur once: hyper-parameters are set, "
        "arguments are matched and terms are logged by their names. Rename one of them, or remove it if it is left over "
        "from an edit; the message shows both places."
    )
    bad = "minimize {\n  pairs: contrast(image, text)\n  pairs: contrast(text, image)\n}\n"
    good = "minimize {\n  pairs: contrast(image, text)\n  reversed: contrast(text, image)\n}\n"


class RequiredAfterDefault(Problem):
    code = "V0121"
    template = "`{name}` has no default, but follows `{earlier}`, which has one"
    summary = "Parameters without a default come first."
    explanation = (
        "In `recipe` and `def`, parameters without a default (the fields of a batch, the subjects of a function) come "
        "first, those with a default after them: a call passes the first by position and the others by keyword. Move the "
        "parameter to the front, or give it a default."
    )
    bad = "recipe mine(image: Image, strength = 1.0, text: Text)\n\nminimize strength * contrast(image, text)\n"
    good = "recipe mine(image: Image, text: Text, strength = 1.0)\n\nminimize strength * contrast(image, text)\n"
