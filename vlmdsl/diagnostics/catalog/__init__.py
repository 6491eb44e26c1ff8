"""The catalogue: a module per stage, a class per code. Who raises a code imports its module; `catalogue` loads them all."""
