"""The DynapCNN family of chips (Speck): rules, placement, lowering, event-accurate execution. See ``README.md``."""
