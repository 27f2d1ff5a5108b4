"""Base models and tokenizers, adapters, 4-bit weights, parameter counts."""
