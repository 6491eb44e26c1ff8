"""The torch back end: readable source for a planned program (`emit`), and the module that runs it (`objective.Objective`).

Nothing is imported here: `emit` writes text, so it needs no torch, and printing source must not wait for it.
"""
