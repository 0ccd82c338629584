"""What the pipeline calls for analog chips."""

from neurodeploy.targets.analog.chip import AnalogChip


class AnalogCores:
    """The family of analog chips: their description."""

    chip_model = AnalogChip


family = AnalogCores()
