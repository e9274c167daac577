"""The embedded default: a tiny agent model, its videos and its questions; how it was made is in training/."""
