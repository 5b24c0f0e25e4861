"""Which layers of a residual network share channels."""

from floats_edge.method.channels import ChannelGroup, ChannelGroups
from floats_edge.models.spec import WIDE, ModelSpec, own_widths, places


def channel_groups(spec: ModelSpec) -> ChannelGroups:
    """The channel groups of the network that ``spec`` describes.

    All that is added to the residual stream of a stage shares its channels: what the stem or the projection of the
    first block writes, and what the second convolution of every block adds. What a wide ResNet normalises in front of
    its convolutions is the stream. The stem's images and the classes stay.
    """
    widths = spec.widths or own_widths(spec.arch, spec.width)
    writers, readers, norms = ([[] for _ in widths.streams] for _ in range(3))
    writers[0].append("stem")
    inner = []
    for index, (source, target, _) in enumerate(places(spec.arch)):
        block = f"blocks.{index}"
        readers[source].append(f"{block}.conv1")
        writers[target].append(f"{block}.conv2")
        if source != target:
            readers[source].append(f"{block}.shortcut")
            writers[target].append(f"{block}.shortcut")
        if spec.arch in WIDE:
            norms[source].append(f"{block}.norm")
        inner.append(ChannelGroup(block, widths.inner[index], (f"{block}.conv1",), (f"{block}.conv2",)))
    readers[-1].append("head")
    if spec.arch in WIDE:
        norms[-1].append("norm")
    streams = (
        ChannelGroup(f"stream {index}", size, tuple(writers[index]), tuple(readers[index]), tuple(norms[index]))
        for index, size in enumerate(widths.streams)
    )
    return ChannelGroups(tuple(streams), tuple(inner))
