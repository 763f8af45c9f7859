"""Devices: frames in and out."""

from tunstack.device.base import Device
from tunstack.device.errors import DeviceError
from tunstack.device.impairment import Impairment
from tunstack.device.memory import MemoryDevice, memory_pipe
from tunstack.device.tun import TunDevice

__all__ = ["Device", "DeviceError", "Impairment", "MemoryDevice", "TunDevice", "memory_pipe"]
