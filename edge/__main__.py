"""``python -m edge``: the device's command line."""

import sys

from edge.cli import main

if __name__ == "__main__":
    sys.exit(main())
