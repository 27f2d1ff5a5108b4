"""Knowing the data: checks, distribution, near-duplicates, leakage, cleaning, versions. Reads rows as they stand in the
file, never holds them, and says where each finding is."""
