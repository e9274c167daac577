"""The same run on the nodes of a Ray cluster.

In: items and a place at a server. Out: records.
The only room that knows Ray.
"""
