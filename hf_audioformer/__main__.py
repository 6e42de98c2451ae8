"""`python -m hf_audioformer <command>`, for launchers that start modules: the same as `hf-audioformer <command>`."""

import sys

from .cli import main

sys.exit(main())
