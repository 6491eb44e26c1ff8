"""Bounds on what is read: recipes are downloaded and run, so every size has one."""

from __future__ import annotations

MAXIMUM_BYTES = 1_000_000
"""Longest source file, in bytes; a recipe of the survey has about two thousand."""

MAXIMUM_PIECES = 30_000
"""Most words, symbols and line breaks of a source file; a recipe of the survey has about five hundred."""

MAXIMUM_USED_PIECES = 60_000
"""Most words, symbols and line breaks of a recipe with all the files that it uses: further ones are refused."""

MAXIMUM_NESTING = 100
"""Deepest nesting of brackets, of `let ... in` and of unary signs in one expression."""

MAXIMUM_USE_DEPTH = 32
"""Longest chain of files that `use` one another."""

MAXIMUM_FILES = 200
"""Most files one recipe may pull in."""

MAXIMUM_FLOWS = 64
"""Most objectives that a file holds, one for each flow of each stage; a recipe of the survey has three."""

MAXIMUM_NODES = 20_000
"""Most nodes of an objective graph; a bundled recipe has under two hundred."""

MAXIMUM_CALL_DEPTH = 100
"""Deepest nesting of function calls while a recipe is elaborated."""

MAXIMUM_CALLS = 10_000
"""Most function calls that one elaboration carries out; a bundled recipe takes under a thousand."""

MAXIMUM_STEPS = 100_000
"""Most expressions that one elaboration evaluates, and nodes that it asks for; a bundled recipe takes under two thousand."""

MAXIMUM_ITEMS = 1_000
"""Most items of a tuple, those of the tuples in it counted."""

MAXIMUM_VIEWS = 64
"""Most views in a set, and most elements in a product of sets."""

MAXIMUM_UNITED = 128
"""Most matrices whose columns stand side by side."""

MAXIMUM_DIAGNOSTICS = 100
"""Most diagnostics one run reports."""

LARGEST_NUMBER = 3e38
"""Largest number of an objective, which is computed in 32-bit floating point."""

SMALLEST_TEMPERATURE = 1e-30
"""Least that similarities are divided by: below it their exponents are beyond 32-bit floating point."""

MAXIMUM_QUEUE = 2**24
"""Most vectors that a queue holds; the largest of the survey holds 65,536."""

MAXIMUM_LAYERS = 16
"""Linear maps in one head."""

MAXIMUM_BLOCKS = 64
"""Blocks of a text decoder; the largest of the survey has 24."""

MAXIMUM_QUERIES = 4096
"""Learned queries of a pooler; CoCa has 256."""

MAXIMUM_WIDTH = 65_536
"""Length of features inside a head, or after it."""

MAXIMUM_MINED = 32
"""Most negatives that each sample picks from the batch."""

MAXIMUM_RETRIEVED = 2**12
"""Most samples that each sample retrieves from a reference set."""

MAXIMUM_ENTRIES = 2**20
"""Entries of a codebook, and of the logits of patches."""
