"""Pages that report a run or a comparison: one HTML file each, with everything in it.

What a page shows comes from recipes, data and run folders, which may be a stranger's: texts are escaped, pictures are
decoded and encoded again, and both are bounded. A page has no script, and its policy forbids scripts and anything from
elsewhere.
"""

from vlmdsl.runtime.reporting.comparison_page import ComparedRun, ComparisonFacts, comparison_page
from vlmdsl.runtime.reporting.run_page import Flow, RunFacts, run_page

__all__ = ["ComparedRun", "ComparisonFacts", "Flow", "RunFacts", "comparison_page", "run_page"]
