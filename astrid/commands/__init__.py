"""Groups of commands, one module per subject; :mod:`astrid.cli` adds them to the command line."""
