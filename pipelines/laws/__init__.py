"""The model contract: properties of every model ("laws"), random small specs to test them, `multigate check-model`."""
