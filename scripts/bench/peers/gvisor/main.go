// A server on gVisor's netstack and a TUN interface: the sink, source and echo of protocols.py, and idle connections.
//
//	gvisor INTERFACE ADDRESS CONGESTION [gso]
//
// Without gso it is put together as gVisor's own samples are: link/tun and link/fdbased. With it the link endpoint is the one below:
// super-segments both ways and checksums left to the kernel, as programs have it that need the speed. Buffers may grow to 8 MiB, as
// the kernel's may; everything else is as it comes. Prints {} when it is ready; runs until it is ended.
package main

import (
	"fmt"
	"log"
	"net"
	"os"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/fdbased"
	"gvisor.dev/gvisor/pkg/tcpip/link/tun"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

const (
	mtu   = 1500
	chunk = 256 * 1024 // octets, of a read or write of bulk
	small = 4 * 1024   // of the others
)

// A service reads, writes or both, in pieces of so many octets.
type service struct {
	port          uint16
	reads, writes bool
	size          int
}

var services = []service{
	{5001, true, false, chunk},
	{5002, false, true, chunk},
	{5003, true, true, small},
	{5004, true, false, small},
}

func (s service) handle(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, s.size)
	for {
		n := len(buffer)
		var err error
		if s.reads {
			if n, err = conn.Read(buffer); err != nil {
				return
			}
		}
		if s.writes {
			if _, err = conn.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
}

func (s service) serve(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go s.handle(conn)
	}
}

func openLink(name string, gso bool) (stack.LinkEndpoint, error) {
	if gso {
		return openVirtio(name)
	}
	fd, err := tun.Open(name)
	if err != nil {
		return nil, err
	}
	return fdbased.New(&fdbased.Options{FDs: []int{fd}, MTU: mtu})
}

func newStack(congestion string) (*stack.Stack, error) {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol},
	})
	sack := tcpip.TCPSACKEnabled(true)
	moderate := tcpip.TCPModerateReceiveBufferOption(true)
	control := tcpip.CongestionControlOption(congestion)
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: 4096, Default: 1 << 20, Max: 8 << 20}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: 4096, Default: 1 << 20, Max: 8 << 20}
	for _, option := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &control, &receive, &send} {
		if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, option); err != nil {
			return nil, fmt.Errorf("%T: %s", option, err)
		}
	}
	return s, nil
}

func main() {
	if len(os.Args) < 4 {
		log.Fatal("usage: gvisor INTERFACE ADDRESS CONGESTION [gso]")
	}
	link, err := openLink(os.Args[1], len(os.Args) > 4)
	if err != nil {
		log.Fatal(err)
	}
	s, err := newStack(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	if err := s.CreateNIC(1, link); err != nil {
		log.Fatal(err)
	}
	address := tcpip.Address(net.ParseIP(os.Args[2]).To4())
	protocolAddress := tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: address.WithPrefix()}
	if err := s.AddProtocolAddress(1, protocolAddress, stack.AddressProperties{}); err != nil {
		log.Fatal(err)
	}
	s.SetRouteTable([]tcpip.Route{{Destination: header.IPv4EmptySubnet, NIC: 1}})
	for _, service := range services {
		listener, err := gonet.ListenTCP(s, tcpip.FullAddress{NIC: 1, Addr: address, Port: service.port}, ipv4.ProtocolNumber)
		if err != nil {
			log.Fatal(err)
		}
		go service.serve(listener)
	}
	fmt.Println("{}")
	select {}
}
