"""Vocabularies: trained anew on a corpus."""
