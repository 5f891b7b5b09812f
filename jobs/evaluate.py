"""Evaluation: a protocol's question, answered on patients that nothing was fitted on, with a report.

python jobs/evaluate.py                                       the demo: simulated patients, each condition
python jobs/evaluate.py --protocol mitdb-windows --archives archives/mitdb --output reports --retrain 40
python jobs/evaluate.py --protocol ptbxl-normal --archives archives/ptbxl --output reports --model models/mine
"""

import logging
import sys

from rmsai_ray import job
from rmsai_ray.evaluation.config import EvaluateConfig
from rmsai_ray.evaluation.flow import evaluate

PRESETS = {
    "demo": EvaluateConfig(
        protocol="simulated",
        archives=("demo/evaluation/archives",),
        output="demo/evaluation/reports",
        draws=100,
        reopen_test="the demo's patients are simulated, and decide nothing",
        demo=True,
    )
}

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    sys.exit(job.run(EvaluateConfig, evaluate, presets=PRESETS, argv=sys.argv[1:]))
