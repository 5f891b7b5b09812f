"""Simulate: archives of bedside-monitor events that nobody had to live through, the same for the same seed.

python jobs/simulate.py                                       the demo: 100 events into demo/simulated
python jobs/simulate.py --events 100000 --seed 7 --output s3://icu/simulated --preset high-anomaly
"""

import sys

from rmsai_ray import job
from rmsai_ray.corpus.simulate import SimulateConfig, simulate

PRESETS = {"demo": SimulateConfig(events=100, output="demo/simulated")}

if __name__ == "__main__":
    sys.exit(job.run(SimulateConfig, simulate, presets=PRESETS, argv=sys.argv[1:]))
