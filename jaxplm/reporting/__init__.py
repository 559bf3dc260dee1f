"""What a person sees of a run: log lines, metrics, report, plots, model card."""
