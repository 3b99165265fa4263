"""GrADS Studio: choose the samples worth fine-tuning on, by their gradients (arXiv 2511.08620)."""

__version__ = "0.5.0.dev0"
