"""What all tests share."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny models: threads cost more than they bring
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing may be fetched
