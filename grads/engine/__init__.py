"""Models, their training, and per-sample gradients: the heart."""
