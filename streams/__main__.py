"""`python -m streams` is `tripswitch`."""

from streams.cli import main

main()
