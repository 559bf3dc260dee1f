"""Select texts of a corpus for a task: the nearest ones (kNN-TAPT), by importance weights (DSIR), or by chance."""
