package main

import (
	"encoding/binary"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
	"gvisor.dev/gvisor/pkg/bufferv2"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/rawfile"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

const (
	virtioLength = 10 // struct virtio_net_hdr: flags, gso_type, then 16 bits each: hdr_len, gso_size, csum_start, csum_offset
	needsCsum    = 1
	gsoTCPv4     = 1
	offloads     = 0x01 | 0x02 // TUN_F_CSUM, TUN_F_TSO4
	superMax     = 65535
	partsMax     = 64 // of a packet, for writev
)

// virtioEndpoint is a link endpoint on a TUN interface with a virtio header.
type virtioEndpoint struct {
	fd         int
	dispatcher stack.NetworkDispatcher
}

func openVirtio(name string) (stack.LinkEndpoint, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	var request struct {
		name  [unix.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], name)
	request.flags = unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETIFF, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return nil, os.NewSyscallError("TUNSETIFF", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TUNSETOFFLOAD, offloads); errno != 0 {
		return nil, os.NewSyscallError("TUNSETOFFLOAD", errno)
	}
	return &virtioEndpoint{fd: fd}, nil
}

func (*virtioEndpoint) MTU() uint32                             { return mtu }
func (*virtioEndpoint) MaxHeaderLength() uint16                 { return 0 }
func (*virtioEndpoint) LinkAddress() tcpip.LinkAddress          { return "" }
func (*virtioEndpoint) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareNone }
func (*virtioEndpoint) AddHeader(stack.PacketBufferPtr)         {}
func (*virtioEndpoint) Wait()                                   {}
func (*virtioEndpoint) GSOMaxSize() uint32                      { return superMax - header.IPv4MaximumHeaderSize }
func (*virtioEndpoint) SupportedGSO() stack.SupportedGSO        { return stack.HostGSOSupported }
func (e *virtioEndpoint) IsAttached() bool                      { return e.dispatcher != nil }

// Capabilities says that checksums that come need no look: those of packets from this machine are not even computed.
func (*virtioEndpoint) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityRXChecksumOffload
}

func (e *virtioEndpoint) Attach(dispatcher stack.NetworkDispatcher) {
	e.dispatcher = dispatcher
	if dispatcher != nil {
		go e.read()
	}
}

func (e *virtioEndpoint) read() {
	frame := make([]byte, virtioLength+superMax)
	for {
		n, err := rawfile.BlockingRead(e.fd, frame)
		if err != nil {
			return
		}
		data := append([]byte(nil), frame[virtioLength:n]...)
		packet := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: bufferv2.MakeWithData(data)})
		e.dispatcher.DeliverNetworkPacket(header.IPv4ProtocolNumber, packet)
		packet.DecRef()
	}
}

func (e *virtioEndpoint) WritePackets(packets stack.PacketBufferList) (int, tcpip.Error) {
	for i, packet := range packets.AsSlice() {
		virtio := virtioHeader(packet)
		var parts [8]unix.Iovec
		vector := rawfile.AppendIovecFromBytes(parts[:0], virtio[:], partsMax)
		for _, part := range packet.AsSlices() {
			vector = rawfile.AppendIovecFromBytes(vector, part, partsMax)
		}
		if err := rawfile.NonBlockingWriteIovec(e.fd, vector); err != nil {
			return i, err
		}
	}
	return packets.Len(), nil
}

func virtioHeader(packet stack.PacketBufferPtr) (virtio [virtioLength]byte) {
	gso := packet.GSOOptions
	if gso.Type == stack.GSONone {
		return
	}
	binary.LittleEndian.PutUint16(virtio[2:], uint16(packet.HeaderSize()))
	if gso.NeedsCsum {
		virtio[0] = needsCsum
		binary.LittleEndian.PutUint16(virtio[6:], gso.L3HdrLen)
		binary.LittleEndian.PutUint16(virtio[8:], gso.CsumOffset)
	}
	if packet.Data().Size() > int(gso.MSS) {
		virtio[1] = gsoTCPv4
		binary.LittleEndian.PutUint16(virtio[4:], gso.MSS)
	}
	return
}
