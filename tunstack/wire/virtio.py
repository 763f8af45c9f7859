"""The virtio_net_hdr that precedes every frame of a TUN interface opened with IFF_VNET_HDR.

Virtual I/O Device (VIRTIO) 1.2, 5.1.6, in its legacy form: 10 octets in the machine's byte order.
"""

from __future__ import annotations

from struct import Struct

NEEDS_CSUM = 1  # the checksum field holds the pseudo-header's sum only; who puts it on a wire completes it
DATA_VALID = 2  # somebody has verified the checksum already

GSO_NONE = 0
GSO_TCPV4 = 1
GSO_ECN = 0x80  # CWR belongs to the first packet of the run only

HEADER = Struct("=BBHHHH")  # flags, gso_type, hdr_len, gso_size, csum_start, csum_offset
LENGTH = HEADER.size
NO_OFFLOAD = bytes(LENGTH)
