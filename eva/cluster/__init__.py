"""The same run on the nodes of a Ray cluster.

In: items and the servers that they are assigned to. Out: records.
The only room that knows Ray.
"""
