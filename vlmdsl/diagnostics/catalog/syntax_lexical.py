"""V0101 to V0111: bytes, characters, numbers and strings; nothing here knows of statements."""

from __future__ import annotations

from vlmdsl.diagnostics.problem import Problem

__all__ = [
    "BadEscape", "ForeignSyntax", "MalformedNumber", "NotText", "NumberOutOfRange", "TooDeep", "TooLarge", "UnclosedString",
    "UnknownCharacter", "UnknownUnit", "WrongQuotes",
]  # fmt: skip


class NotText(Problem):
    code = "V0101"
    template = "this file is not UTF-8 text"
    summary = "The bytes of the file are not UTF-8 text."
    explanation = (
        "A recipe is a UTF-8 text file. The byte shown cannot be part of one, so nothing of the file was read. "
        "Most often the path names another kind of file: an image, an archive, a checkpoint, or a text that an "
        "editor saved in an older encoding such as Latin-1 or UTF-16. Save the file as UTF-8, or check the path. "
        "A byte order mark at the start is accepted and ignored, and so are the line ends of Windows."
    )
    provoked_by = "a file whose bytes are not UTF-8"


class TooLarge(Problem):
    code = "V0102"
    template = "this file has {size}; a recipe may have {limit}"
    summary = "The file is larger than any recipe may be."
    explanation = (
        "Recipes are downloaded and run, so every size has a bound: a file of more than one million bytes, or of "
        "more than thirty thousand words, signs and line breaks, is refused before it is parsed. The recipes of "
        "the published methods have about two thousand bytes. A file of this size is most often something else "
        "than a recipe, or was generated: write calls of a `def` instead of its copies."
    )
    provoked_by = "a file of more than a million bytes"


class TooDeep(Problem):
    code = "V0103"
    template = "this expression is nested more than {limit} levels deep"
    summary = "An expression is nested deeper than the bound allows."
    explanation = (
        "Brackets, calls, operators and `let ... in` may be nested a hundred levels deep in one expression; a sum "
        "of a hundred terms is such a nesting too, as `a + b + c` means `(a + b) + c`. The bound keeps a "
        "downloaded recipe from exhausting the machine before it is checked. Name parts of the expression with "
        "`let`, or repeat a pattern with `def`: each named part starts again at level zero."
    )
    bad = f"minimize {'(' * 101}contrast(image, text){')' * 101}\n"
    good = "minimize (contrast(image, text))\n"


class UnknownCharacter(Problem):
    code = "V0104"
    template = "{character} has no meaning in a recipe"
    summary = "A character that the language does not use."
    explanation = (
        "Outside of strings and comments a recipe is made of ASCII letters, digits, underscores, blanks and the "
        "signs `+ - * / < > = ! ( ) [ ] { } , : . | % #` and the double quote. Names are ASCII too: write `tau` "
        "for the Greek letter. Characters pasted from a paper or a web page often only look like these: a long "
        "dash for the minus sign, a multiplication sign for `*`, a no-break space for a blank. The message names "
        "the character and, where there is one, the sign to write instead."
    )
    bad = "minimize 0.5 × contrast(image, text)\n"
    good = "minimize 0.5 * contrast(image, text)\n"


class WrongQuotes(Problem):
    code = "V0105"
    template = "strings are written in straight double quotes"
    summary = "A string in single or typographic quotes."
    explanation = (
        'A string stands between straight double quotes: `cite "arXiv:2103.00020"`. Single quotes, and the curved '
        "quotes that word processors and web pages make of straight ones, are not accepted, so that there is one "
        "way to write a string. `vlmdsl check --fix` replaces them. A double quote inside of a string is written "
        '`\\"`.'
    )
    bad = "recipe mine(image: Image, text: Text)\ncite 'arXiv:2103.00020'\n\nminimize contrast(image, text)\n"
    good = 'recipe mine(image: Image, text: Text)\ncite "arXiv:2103.00020"\n\nminimize contrast(image, text)\n'


class UnclosedString(Problem):
    code = "V0106"
    template = "this string has no closing quote"
    summary = "A string that does not end on its line."
    explanation = (
        "A string ends with a double quote on the line on which it begins; it cannot run over several lines. Add "
        'the closing quote. If the text itself has a double quote, write it `\\"`; a line break inside of a string '
        "is written `\\n`. A backslash just before the closing quote escapes it: write `\\\\` for a backslash."
    )
    bad = 'recipe mine(image: Image, text: Text)\ncite "arXiv:2103.00020\n\nminimize contrast(image, text)\n'
    good = 'recipe mine(image: Image, text: Text)\ncite "arXiv:2103.00020"\n\nminimize contrast(image, text)\n'


class BadEscape(Problem):
    code = "V0107"
    template = "`{escape}` is no escape"
    summary = "A backslash in a string is followed by something it cannot escape."
    explanation = (
        'In a string, `\\n` is a line break, `\\t` a tab, `\\"` a double quote, `\\\\` a backslash, and `\\uXXXX` the '
        "character with that hexadecimal number. Any other letter after a backslash is an error, as it is far "
        "more often a slip than meant: a path or a LaTeX formula needs its backslashes doubled. Characters beyond "
        "ASCII may stand in a string as they are and need no escape."
    )
    bad = 'recipe mine(image: Image, text: Text)\ncite "\\tau and \\sigma"\n\nminimize contrast(image, text)\n'
    good = 'recipe mine(image: Image, text: Text)\ncite "\\\\tau and \\\\sigma"\n\nminimize contrast(image, text)\n'


class MalformedNumber(Problem):
    code = "V0108"
    template = "`{text}` is not how a number is written"
    summary = "Something that begins like a number and is none."
    explanation = (
        "A number begins with a digit: `3`, `0.07`, `1e-3`. There are digits on both sides of the point, so `.5` "
        "is written `0.5` and `1.` is written `1.0`. Digits are not grouped by underscores, and there are no "
        "hexadecimal numbers. A multiplier, a percent sign or a unit may follow: `32k`, `2M`, `15%`, `2000 "
        "steps`, `10 epochs`."
    )
    bad = "minimize .5 * contrast(image, text)\n"
    good = "minimize 0.5 * contrast(image, text)\n"


class NumberOutOfRange(Problem):
    code = "V0109"
    template = "this number cannot be represented"
    summary = "A number too large, too small, or with more digits than can be kept."
    explanation = (
        "Numbers are held as 64-bit floating point. A number above about 1.8e308 would be infinite, one below "
        "about 5e-324 would be zero, and a whole number above 9007199254740992 (2 to the 53rd) would lose its "
        "last digits. None of them is what its author meant, so they are refused rather than rounded. Write a "
        "large scale with an exponent (`1e20`), and leave out a limit instead of writing a very large number for "
        "it."
    )
    bad = "minimize 1e999 * contrast(image, text)\n"
    good = "minimize 1e3 * contrast(image, text)\n"


class UnknownUnit(Problem):
    code = "V0110"
    template = "`{unit}` is no unit"
    summary = "A word directly after a number that is no unit."
    explanation = (
        "After a number there may stand a percent sign (`15%` is 0.15), a multiplier (`32k` is 32000, `2M` is "
        "2000000), or a duration: `2000 steps`, `10 epochs`, attached or after one blank. Any other word after a "
        "number is an error. To multiply, write the star: `2 * tau`, not `2 tau`. If two arguments were meant, "
        "put a comma between them."
    )
    bad = "minimize ramp(0, 1, over=10 parsecs) * contrast(image, text)\n"
    good = "minimize 0.5 * contrast(image, text)\n"


class ForeignSyntax(Problem):
    code = "V0111"
    template = "`{text}` is {origin}; recipes have no such thing"
    summary = "A construct of Python or another language that recipes do not have."
    explanation = (
        "A recipe says what is minimised and nothing else, so it has no statements, loops, conditions of control "
        "flow, imports, anonymous functions or assignments. What it has instead: `let name = value` to name a "
        "value, `def f(a, b) = expression` for a function, `where(condition, x, y)` to choose per sample, `use "
        "name` for another recipe, `exp` and `log` for powers. Statements end with their line, so there are no "
        "semicolons. The message says which of these takes the place of what was written."
    )
    bad = "let square = score(image, text) ** 2\n\nminimize contrast(image, text, weight=square)\n"
    good = "let s = score(image, text)\nlet square = s * s\n\nminimize contrast(image, text, weight=square)\n"
