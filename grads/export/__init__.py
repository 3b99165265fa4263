"""A selection -> files that a trainer reads, each checked that it loads."""
