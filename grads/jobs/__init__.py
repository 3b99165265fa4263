"""Detached processes: start, watch, stop. Knows no stage."""
