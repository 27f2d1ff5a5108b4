"""Rows to train on: where they come from, one prompt for training and evaluation, tokens, splits."""
