"""The evaluation harness for EVA: one package per room, and imports that go downward only (docs/architecture.md).

In: annotated questions, videos, a model behind a server. Out: records, figures, a page.
"""

__version__ = "0.1.0"
