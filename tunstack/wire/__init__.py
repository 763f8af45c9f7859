"""Octets to values and back, without state. Import the modules: codec, flow, segment, ipv4, icmp, ..."""
