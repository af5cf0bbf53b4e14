"""`python -m w2sd`."""

import sys

from w2sd.cli import main

if __name__ == "__main__":
    sys.exit(main())
