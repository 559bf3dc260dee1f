"""Files, hub data sets and built-ins as rows and as cleaned texts."""
