"""``python -m sciffusion`` is the command line."""

import sys

from sciffusion.cli import main

if __name__ == "__main__":
    sys.exit(main())
