"""V06: lowering to what runs."""
