"""What every training run shares: the loop, the compiled step, the optimizer, the workdir. It knows the Job protocol and no task."""
