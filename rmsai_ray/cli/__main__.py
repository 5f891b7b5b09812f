"""``python -m rmsai_ray.cli``, where the console command is not on the path."""

import sys

from rmsai_ray.cli import main

sys.exit(main())
