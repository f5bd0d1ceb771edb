"""`python -m pipelines.cli`: the command line without an installed script, as torchrun starts it."""

from pipelines.cli.main import main

main()
