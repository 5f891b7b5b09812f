"""From scores to decisions: detectors, thresholds, event verdicts. Pure numpy."""
