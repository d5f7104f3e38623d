"""`python -m quantize RUN` and `python -m quantize compare RUN`."""

import sys

from quantize.cli import main

if __name__ == "__main__":
    sys.exit(main())
