"""w2sd: a test bench for weak-to-strong generalisation and deception."""

import time

__version__ = "0.1.0"
BEGAN = time.time()  # no other line of this package is older in this process
