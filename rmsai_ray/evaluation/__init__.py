"""Evaluation: what the scores are worth on patients that nothing was fitted on, beside what is simpler."""
