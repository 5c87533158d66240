"""`python -m firkin.cli` is `firkin`."""

from firkin.cli import main

main()
