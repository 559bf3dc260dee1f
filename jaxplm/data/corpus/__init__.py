"""A corpus as tokens: tokenized once, cached, held out."""
