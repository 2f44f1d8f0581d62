"""One encoder per stream format. Each turns logged events into frames and knows nothing else."""
