"""Runs of the same recordings at every stage, compared."""
