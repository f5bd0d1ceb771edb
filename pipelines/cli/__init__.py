"""The command line: the layer that knows files, runs and the order of steps."""
