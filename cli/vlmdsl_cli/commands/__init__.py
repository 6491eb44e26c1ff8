"""One module per command; each has `command`, which `main` imports only when it is called."""
