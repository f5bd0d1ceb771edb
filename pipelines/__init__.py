"""The command line, drafting of specs, reports, and the tests of the model contract."""
