"""The agents: one file for each, and the choice of one by its flag.

In: a task, replies, frames. Out: messages, actions.
"""
