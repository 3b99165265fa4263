"""The command line, a thin shell over grads.api."""
