"""Windows → embeddings and errors. Nothing here knows of files or Ray."""
