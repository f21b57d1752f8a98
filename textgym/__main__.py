"""`python -m textgym`: the command line."""

import sys

from textgym.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
