"""The index of a results folder: what its run directories say, in one SQLite file on this machine's own disk.

It holds nothing that is not in the run directories, so it can be removed at any time, and is made again.
"""
