"""Vocabularies: measured on a corpus, extended by chosen words, or trained on the corpus itself."""
