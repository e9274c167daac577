"""What the paper and the reference prescribe: messages, replies, arguments, budget, stop reasons.

In: questions, replies, numbers. Out: messages, actions, numbers, as `docs/protocol.md` says.
Pure: nothing here reads a file, opens a socket or starts a process.
"""
