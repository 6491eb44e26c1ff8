"""The torch back end: readable source for a planned program (`emit`), and the module that runs it (`objective.Objective`).

Nothing is imported here: `emit` writes text and must not load torch.
"""
