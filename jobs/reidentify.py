"""Re-identification: how well a lake's embeddings know a patient again, and the lake's data card.

python jobs/reidentify.py                                     the demo: eight simulated patients
python jobs/reidentify.py --lake s3://icu/lake --licence "hospital use, contract 12"
rmsai card --lake s3://icu/lake
"""

import sys

from rmsai_ray import job
from rmsai_ray.cards.flow import ReidentifyConfig, reidentify

PRESETS = {
    "demo": ReidentifyConfig(
        lake="demo/reidentify/lake", licence="simulated, none needed", draws=100, demo=True
    ),
}

if __name__ == "__main__":
    sys.exit(job.run(ReidentifyConfig, reidentify, presets=PRESETS, argv=sys.argv[1:]))
