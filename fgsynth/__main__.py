"""`python -m fgsynth COMMAND`."""

import sys

from fgsynth.pipeline.commands import main

sys.exit(main())
