"""The same run on the nodes of a Ray cluster. The only room that knows Ray."""
