"""Random recipes with hostile text in every place where a recipe has text, nearly all of them correct otherwise."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass

__all__ = ["Hostile", "hostile_recipe"]

CODE = '__import__("os").system("touch PWNED")'
STRINGS = [
    f"x\n{CODE}#", f"x\r{CODE}", f'x" if {CODE} else "x', f"x' if {CODE} else 'x", f'"""\n{CODE}\n"""', f"x\u2028{CODE}",
    f"x\\\n{CODE}", f'x"]\n    {CODE}\n    y = inputs["x', "\\", "\\\\", '\\"', "\x1b[2J\x1b]0;title\x07", "\x00",
    "\x7f\x9b2J", "\u202eevil\u202c", "\u2066a\u2069", "\u200b", "\ufeff", "\\ud800", "\\x41", "{0.__class__}", "%s%n",
    "${HOME}", "$(id)", "`id`", "$x_{", "\\input{/etc/passwd}", "}\\end{aligned}", "[/red]", "x" * 4_000, "漢字" * 50,
    "", " ", "#", "# fmt: off", "-*- coding: utf-7 -*-", "../../etc/passwd", "a/b", "con", "\t", "\x85", "\U000e0001",
    "\U0001f600",
]  # fmt: skip
NAMES = [
    "__import__", "__builtins__", "__debug__", "__class__", "exec", "eval", "os", "print", "open", "None", "True", "class",
    "lambda", "import", "del", "ops", "inputs", "parameters", "objective", "mixtures", "blends", "loss", "terms", "metrics",
    "_", "__", "x" * 60, "forward", "training", "_emitted", "_parameters", "match", "yield", "torch", "Direction", "nan",
    "inf",
]  # fmt: skip


@dataclass(frozen=True)
class Hostile:
    """A recipe: its text, the name of its file, and the name of a file that it may use."""

    text: str
    file: str
    used: str


def hostile_recipe(seed: int) -> Hostile:
    """The recipe of a seed; one in ten has a string that no name may be, or uses a file."""
    draw = random.Random(seed)
    fields = draw.sample(NAMES, 3)
    taken = set(fields)

    def fresh() -> str:
        name = draw.choice([name for name in NAMES if name not in taken])
        taken.add(name)
        return name

    def quoted(text: str) -> str:
        """A string of the language; JSON writes the escapes that it knows, and others for the rest."""
        plain = "".join(character for character in text if ord(character) < 0x10000)
        return json.dumps(plain).replace("\\r", "\\u000d").replace("\\b", "\\u0008").replace("\\f", "\\u000c")

    def named() -> str:
        strange = draw.random() < 0.01
        return quoted(draw.choice(STRINGS if strange else NAMES))

    def said() -> str:
        return " ".join("".join(draw.sample(STRINGS, 2)).splitlines()).replace("\n", " ")

    parameter, let, function, encoder, used = (fresh() for _ in range(5))
    option = f"{fresh()} = {quoted(draw.choice(STRINGS))}"
    image, text, label = fields
    file = "".join(draw.sample(STRINGS, 2))[:200] + ".vlo"
    uses = draw.random() < 0.1
    terms = [
        f"contrast({encoder}({image}), {text}, temperature=learned({parameter}, name={named()}))",
        f"{function}(contrast({image}, {text}, targets=same({label}), temperature={let}))",
        f"memory_contrast({image}, {text}, queue({text}, size=16, name={named()}), temperature=0.07)",
        f"contrast({image}, mix({text}, by=beta(1, 1, name={named()})), temperature={parameter})",
        f"contrast({image}, separate(language, name={named()})({text}), temperature={parameter})",
        f"mean({image}{draw.choice(['', ' '])}.pooled)" if draw.random() < 0.01 else f"regress({image}, stop({text}))",
        f"contrast({image}, {text}, weight=exp(running_mean(stop(score({image}, {text})), name={named()}) - 1))",
    ]
    chosen = [f"  {fresh()}: {term}" for term in draw.sample(terms, draw.choice((1, 1, 2)))]
    chosen += [f"  {used}: {used}({image}, {text})"] if uses else []
    lines = [
        "vlo 1",
        f"## {said()}",
        f"recipe {draw.choice(NAMES)}({image}: Image, {text}: Text, {label}: Label, {parameter} = 0.07, {option})",
        f"cite {quoted(draw.choice(STRINGS))}",
        f"status {quoted(draw.choice(STRINGS))}",
        *([f"use {quoted('./' + file)} as {used}"] if uses else []),
        f"# {said()}",
        f"encoder {encoder} = project(vision, name={named()})",
        f"let {let} = learned({parameter})  # {said()}",
        f"def {function}(x) = x / 2",
        "minimize {",
        *chosen,
        "}",
    ]
    return Hostile("\n".join(lines) + "\n", "".join(draw.sample(STRINGS, 2))[:200] + ".vlo", file)
