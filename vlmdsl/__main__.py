"""`python -m vlmdsl`, and so `torchrun -m vlmdsl train ...`: the command line."""

from __future__ import annotations

from vlmdsl_cli.main import run

if __name__ == "__main__":
    run()
