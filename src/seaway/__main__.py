"""Run the command line as ``python -m seaway``."""

from seaway.cli.main import run

run()
