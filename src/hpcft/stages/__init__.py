"""The kinds of job besides training: evaluate, merge, quantise, measure. One function a module, of the kind's name."""
