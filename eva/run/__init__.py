"""One run: its settings, the check before it, its samples and their schedule. `evaluate` is the run itself."""
