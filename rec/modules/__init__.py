"""Building blocks of the networks: embeddings, experts, gates, towers, interaction layers."""
