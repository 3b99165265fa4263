"""All that pages, commands and other programs may call; imports in under a second, no torch."""

from grads.api.runs import *  # noqa: F403
