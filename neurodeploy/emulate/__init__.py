"""Executing programs over data sets, and what one recording did."""
