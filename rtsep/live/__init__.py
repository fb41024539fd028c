"""Live: a Separator between two sound devices. Nothing in here is imported by `import rtsep`."""

from rtsep.errors import LiveError
from rtsep.live.devices import Device, find_device, list_devices, supported_rates
from rtsep.live.stats import Stats
from rtsep.live.stream import LiveStream

__all__ = ["Device", "LiveError", "LiveStream", "Stats", "find_device", "list_devices", "supported_rates"]
