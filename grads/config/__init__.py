"""What a run, a selection and an evaluation are: validated settings, to and from a file."""
