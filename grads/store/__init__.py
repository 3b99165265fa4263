"""The run directory and the files in it: the only package that knows where they lie."""
