"""OpenAI-compatible servers: one request, one server, and the pool of all.

In: messages. Out: replies, or how a server or a request failed.
Only this room and `frames` leave the process.
"""
