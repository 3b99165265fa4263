"""What a job does: the only place that orders the steps."""
