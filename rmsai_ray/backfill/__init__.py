"""The main job: archives → embeddings, scores and tables. Joins encoding and detection over Ray."""
