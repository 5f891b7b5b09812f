"""Training of the models: windows by patient, the loop, the figures and the card of what came out."""
