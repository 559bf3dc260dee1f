"""The exBERT extension (Tai et al. 2020): modules beside the base, and their initial parameters."""
