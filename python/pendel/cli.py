"""The command line, as ``python -m pendel.cli``; it is `pendel.app.cli`."""

import sys

from .app.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(main())
