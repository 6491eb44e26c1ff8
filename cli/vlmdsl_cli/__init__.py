"""The command line of vlmdsl: thin, a client of `vlmdsl.api` only, one file per command under `commands/`."""
