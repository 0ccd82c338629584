"""Trained ANNs into spiking networks: balancing, images as events, a report of what it costs."""
