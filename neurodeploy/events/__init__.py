"""Event recordings: arrays, files, data sets, rasters, encoders, and a simulated event camera."""

from neurodeploy.events.array import EVENT_DTYPE, EventArray, as_events, make_events
from neurodeploy.events.camera import EventCamera
from neurodeploy.events.dataset import EventDataset, load_npz, save_npz
from neurodeploy.events.digits import load_digits, simulate_digit_events
from neurodeploy.events.encode import latency_encode, rate_encode
from neurodeploy.events.formats import iter_events, read_events, write_events
from neurodeploy.events.hdf5 import load_shd
from neurodeploy.events.info import RecordingInfo, recording_info
from neurodeploy.events.nmnist import read_nmnist_bin, write_nmnist_bin
from neurodeploy.events.raster import dataset_to_raster, events_to_raster, raster_to_events
from neurodeploy.events.saccade import SaccadePath
from neurodeploy.events.spike_times import SpikeTimes, load_spike_times, save_spike_times
from neurodeploy.events.yin_yang import yin_yang, yin_yang_times

__all__ = [
    "EVENT_DTYPE",
    "EventArray",
    "EventCamera",
    "EventDataset",
    "RecordingInfo",
    "SaccadePath",
    "SpikeTimes",
    "as_events",
    "dataset_to_raster",
    "events_to_raster",
    "iter_events",
    "latency_encode",
    "load_digits",
    "load_npz",
    "load_shd",
    "load_spike_times",
    "make_events",
    "raster_to_events",
    "rate_encode",
    "read_events",
    "read_nmnist_bin",
    "recording_info",
    "save_npz",
    "save_spike_times",
    "simulate_digit_events",
    "write_events",
    "write_nmnist_bin",
    "yin_yang",
    "yin_yang_times",
]
