"""Placement of layers on cores: exact, stable, and explained when there is none. Knows no chip."""
