"""The stages of one evaluation: item, prompt, reply, budget, agent, model, tool, records, scoring."""

__version__ = "0.1.0"
