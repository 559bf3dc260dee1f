"""What a person sees of a run: console, metrics, report, plots, model card."""
