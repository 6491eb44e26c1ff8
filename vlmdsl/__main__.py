"""`python -m vlmdsl`, and so `torchrun -m vlmdsl train ...`: the command line."""

from __future__ import annotations

import sys

from vlmdsl_cli.main import main

if __name__ == "__main__":
    sys.exit(main())
