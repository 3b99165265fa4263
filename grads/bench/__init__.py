"""Speed and memory, as ratios to peers in one process."""
