"""A run on one page, to send on."""
