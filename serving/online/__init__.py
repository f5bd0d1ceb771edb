"""Online ranking: a request is parsed, hydrated from the store, ranked, and its response encoded."""
