"""The stages of one evaluation: item, prompt, reply, budget, agent, model, tool, records, scoring."""
