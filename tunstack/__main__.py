"""`python -m tunstack`."""

import sys

from tunstack.cli import main

sys.exit(main())
