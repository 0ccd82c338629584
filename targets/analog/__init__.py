"""Analog neuron cores: chips whose neurons are circuits in continuous time; see README.md."""
