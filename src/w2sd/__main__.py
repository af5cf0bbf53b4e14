"""`python -m w2sd`."""

import sys

from w2sd.cli import main

sys.exit(main())
