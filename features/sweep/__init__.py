"""The sweep: a log walked once in order of time, what is known of every key in arrays; offline and online alike."""
