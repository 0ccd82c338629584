"""The network's inputs and their way to the cores: straight from the host, or through the sensor's pre-processing."""

from dataclasses import dataclass

from neurodeploy.errors import ConfigError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Input
from neurodeploy.targets.dynapcnn.dvs import DvsLayer, EventFilter
from neurodeploy.targets.dynapcnn.layers import LayerDestination, MapShape, input_ends
from neurodeploy.targets.dynapcnn.settings import DvsSettings, Settings


@dataclass(frozen=True, eq=False)
class InputPath:
    """One input.

    Attributes:
        name: of the Input node.
        shape: ``(C, H, W)`` of the node.
        given_shape: ``(C, H, W)`` of the events that the user gives: those of the sensor where settings say how they
            are pre-processed, else ``shape``.
        ends: the layers it leads to.
        before: the pre-processing that the settings ask for, or one that changes nothing; None where the host writes
            to the cores.
    """

    name: str
    shape: MapShape
    given_shape: MapShape
    ends: tuple[LayerDestination, ...]
    before: DvsLayer | None

    @property
    def as_given(self) -> bool:
        """Whether the events that the user gives are the network's input, not something the settings change first."""
        return self.before is None or self.before == _unchanged(self.shape)

    @property
    def dvs(self) -> DvsLayer | None:
        """The whole pre-processing, with the pooling that the network does first."""
        return None if self.before is None else self.before.pooled_further(self.ends[0].pooling)


def input_paths(graph: Graph, settings: Settings) -> list[InputPath]:
    """Every input of the graph that leads to a layer, in the order of their features in the user's events.

    Raises:
        ConfigError: the settings name no input of the network, or do not lead to the shape it takes.
    """
    names = [name for name, node in graph.nodes.items() if isinstance(node, Input)]
    wanted = settings.dvs
    chosen = None
    if wanted is not None:
        chosen = wanted.input or (names[0] if len(names) == 1 else None)
        if chosen not in names:
            raise ConfigError(
                f"settings: dvs.input is {wanted.input!r}; the inputs are {', '.join(names)}.",
                remedy="name the input that takes the sensor's events.",
                code="dvs-input",
            )
    paths = []
    for name, ends in input_ends(graph).items():
        shape = graph.shapes[name]
        if len(shape) != 3 or not ends:
            continue
        c, h, w = shape
        if name == chosen and wanted is not None:
            paths.append(InputPath(name, (c, h, w), (2, *wanted.sensor_size), ends, _before(wanted, (c, h, w))))
        else:
            pooled = any(end.pools for end in ends)
            before = _unchanged((c, h, w)) if pooled else None
            paths.append(InputPath(name, (c, h, w), (c, h, w), ends, before))
    return paths


def _unchanged(shape: MapShape) -> DvsLayer:
    """A pre-processing that changes nothing."""
    return DvsLayer(cut=(shape[1] - 1, shape[2] - 1), merge=shape[0] == 1)


def _before(wanted: DvsSettings, shape: MapShape) -> DvsLayer:
    pooled = [side // pool for side, pool in zip(wanted.sensor_size, wanted.pooling, strict=True)]
    region = wanted.region
    origin = (region.y, region.x) if region else (0, 0)
    size = (region.height, region.width) if region else (pooled[0], pooled[1])
    found = wanted.filter
    dvs = DvsLayer(
        pooling=wanted.pooling,
        origin=origin,
        cut=(origin[0] + size[0] - 1, origin[1] + size[1] - 1),
        on_channel=wanted.polarity != "off",
        off_channel=wanted.polarity != "on",
        merge=shape[0] == 1,
        mirror=(wanted.mirror_y, wanted.mirror_x),
        mirror_diagonal=wanted.swap_xy,
        pass_sensor_events=wanted.live,
        monitor_enable=wanted.monitor,
        raw_monitor_enable=wanted.raw_monitor,
        event_filter=None if found is None else EventFilter(found.mode, found.size or (0, 0), found.threshold),
    )
    if any(last >= side for last, side in zip(dvs.cut, pooled, strict=True)):
        raise ConfigError(
            f"settings: dvs.region ends at row {dvs.cut[0]} and column {dvs.cut[1]}; after pooling, the sensor has "
            f"{pooled[0]} x {pooled[1]}.",
            remedy="give a region within it.",
            code="dvs-region",
        )
    if dvs.output_shape(2) != shape:
        raise ConfigError(
            f"settings: dvs makes {dvs.output_shape(2)} of the sensor's events; the network takes {shape}.",
            remedy="choose sensor_size, pooling and region so that height and width are those of the network, which "
            "has one or two features.",
            code="dvs-shape",
        )
    return dvs
