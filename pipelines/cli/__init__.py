"""The jobs and the command line: the only layer that knows files, runs and order."""
