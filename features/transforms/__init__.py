"""The definition of every feature: attributes, counters, histories, joins, labels, attribution, sessions, split."""
