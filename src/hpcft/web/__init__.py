"""The REST service: the functions of the command line over HTTP, for one user, on a socket that only that user can
open. Nothing of a model is loaded in its process: a submission is a process of its own."""
