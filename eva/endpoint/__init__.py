"""OpenAI-compatible servers: one request, one server, and the pool of all."""
