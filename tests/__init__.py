"""One file per module of the house, and a few that read the house itself."""
