"""Errors that carry a sentence for the person who runs the evaluation."""


class EvaError(Exception):
    """Something the user can act on: the message says what happened, to what, and what to do."""


class VideoError(EvaError):
    """A video that is missing, unreadable, or holds nothing to show. One sample's trouble, never the run's."""
