"""Online ranking: the body of a request is parsed, hydrated, ranked and answered."""
