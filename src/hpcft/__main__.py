"""`python -m hpcft`, where the command itself is not in PATH."""

from hpcft.cli.main import main

main()
