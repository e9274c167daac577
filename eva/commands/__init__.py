"""The commands: parsers, printing, exit codes. The scripts and `python -m eva` call their `main`."""
