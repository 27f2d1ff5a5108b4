"""The command line: one file a verb, thin. Parse, call, print."""
