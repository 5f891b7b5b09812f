"""Torch models: families of ECG autoencoders, their checkpoints, import of upstream checkpoints."""
