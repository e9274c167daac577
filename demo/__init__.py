"""The embedded default: a tiny agent model, its training, its videos and its questions."""
