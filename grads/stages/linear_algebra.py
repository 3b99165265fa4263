"""The memory that linear algebra works in, taken where it can still be refused.

NumPy and SciPy each bring an OpenBLAS. It takes a buffer for each of its threads when it is loaded,
one at its first product, and further ones where several threads begin products at once. SciPy's
asks for ever for one that it does not get; NumPy's gives up after a while, and ends the process.
"""

from mmap import mmap

import numpy as np
from scipy.linalg.blas import sgemm
from threadpoolctl import threadpool_limits

BUFFER = 2**25  # bytes that an OpenBLAS asks for at once
SPARE = 2**22  # bytes; Python and the heartbeat take some meanwhile
BLOCK = np.ones((64, 64), np.float32)


def take_buffers() -> None:
    """Make both take the one that this process needs for products one at a time.

    Raises OSError, which says that there is no memory, where there is no room for them.
    """
    mmap(-1, 2 * BUFFER + SPARE).close()
    with one_thread():  # of a forked process, the buffers of threads are taken here
        np.matmul(BLOCK, BLOCK)
        sgemm(1.0, BLOCK, BLOCK)


def one_thread() -> threadpool_limits:
    """A context in which no product needs more buffers: several threads would."""
    return threadpool_limits(1)
