"""python -m dimred: the command line."""

import sys

from dimred.cli.main import main

sys.exit(main())
