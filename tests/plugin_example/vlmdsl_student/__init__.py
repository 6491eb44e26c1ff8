"""An example plug-in: one similarity, one entry point."""
