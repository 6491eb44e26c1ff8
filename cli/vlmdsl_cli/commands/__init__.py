"""One module a command; each has `command`, which `main` imports only when it is called."""
