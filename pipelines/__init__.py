"""Everything a user starts: the command line, drafting of specs, reports, the model contract's tests."""
