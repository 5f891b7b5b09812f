"""Data cards: what a lake holds, for whom it is meant, and how well its embeddings know a patient again."""
