"""Tuning: a budget of trials over folds of development patients, proposed by Optuna, run by Ray Tune.

python jobs/tune.py                                           the demo: four tiny trials on simulated patients
python jobs/tune.py --archives archives/mitdb --output tuning --trials 40 --epochs 12
"""

import logging
import sys

from rmsai_ray import job
from rmsai_ray.evaluation.tune import TuneConfig, tune

PRESETS = {
    "demo": TuneConfig(
        archives=("demo/tuning/archives",),
        output="demo/tuning/result",
        trials=4,
        epochs=1,
        most_windows=150,
        demo=True,
    )
}

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(job.run(TuneConfig, tune, presets=PRESETS, argv=sys.argv[1:]))
