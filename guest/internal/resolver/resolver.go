// Package resolver is the workspace's name server where the engine's own does not reach it: it passes queries on, as
// they are, to name servers outside (RFC 1035, section 4.2, with the timeouts of resolv.conf(5)).
package resolver

import (
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"agentic-isolation/guest/internal/kernel"
)

// Address is where the engine tells workspaces on its own networks to ask.
const Address = "127.0.0.11:53"

// Port is where name servers listen.
const Port = 53

const (
	patience    = 2 * time.Second
	quiet       = 10 * time.Second
	maxMessage  = 1 << 16
	acceptPause = 20 * time.Millisecond
	// maxPending bounds the queries and the connections under way, as does a share of the descriptors, of which a
	// connection takes two. Those beyond it are dropped: clients ask again.
	maxPending   = 64
	pendingShare = 16
)

// Relay is a name server that asks others.
type Relay struct {
	upstream []string
	packets  net.PacketConn
	streams  net.Listener
}

// Listen makes a relay at an address, to name servers at HOST:PORT. The first that answers is believed.
func Listen(address string, upstream []string) (*Relay, error) {
	packets, err := net.ListenPacket("udp4", address)
	if err != nil {
		return nil, err
	}
	streams, err := net.Listen("tcp4", packets.LocalAddr().String())
	if err != nil {
		packets.Close()
		return nil, err
	}
	return &Relay{upstream, packets, streams}, nil
}

// Address is where it listens.
func (r *Relay) Address() string { return r.packets.LocalAddr().String() }

// Close ends it.
func (r *Relay) Close() {
	r.packets.Close()
	r.streams.Close()
}

// Serve answers until the relay is closed.
func (r *Relay) Serve() {
	var both sync.WaitGroup
	both.Go(r.servePackets)
	both.Go(r.serveStreams)
	both.Wait()
}

func (r *Relay) servePackets() {
	pending := make(chan struct{}, kernel.ShareOfFiles(pendingShare, maxPending))
	buffer := make([]byte, maxMessage)
	for {
		n, client, err := r.packets.ReadFrom(buffer)
		if err != nil {
			return
		}
		select {
		case pending <- struct{}{}:
		default:
			continue
		}
		query := append([]byte(nil), buffer[:n]...)
		go func() {
			defer func() { <-pending }()
			if answer := r.ask(query); answer != nil {
				_, _ = r.packets.WriteTo(answer, client)
			}
		}()
	}
}

// ask returns a name server's answer, none where nobody has one.
func (r *Relay) ask(query []byte) []byte {
	for _, upstream := range r.upstream {
		if answer := askOne(upstream, query); answer != nil {
			return answer
		}
	}
	return nil
}

// askOne uses a socket of its own for each query, so that its port cannot be guessed; a connected one takes answers
// from nobody else.
func askOne(upstream string, query []byte) []byte {
	conn, err := net.DialTimeout("udp4", upstream, patience)
	if err != nil {
		return nil
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := conn.Write(query); err != nil {
		return nil
	}
	answer := make([]byte, maxMessage)
	for {
		n, err := conn.Read(answer)
		if err != nil {
			return nil
		}
		if n >= 2 && len(query) >= 2 && answer[0] == query[0] && answer[1] == query[1] {
			return answer[:n]
		}
	}
}

func (r *Relay) serveStreams() {
	pending := make(chan struct{}, kernel.ShareOfFiles(pendingShare, maxPending))
	for {
		client, err := r.streams.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, most likely; that passes.
			time.Sleep(acceptPause)
			continue
		}
		select {
		case pending <- struct{}{}:
		default:
			client.Close()
			continue
		}
		go func() {
			defer func() { <-pending }()
			r.splice(client)
		}()
	}
}

func (r *Relay) splice(client net.Conn) {
	defer client.Close()
	for _, upstream := range r.upstream {
		server, err := net.DialTimeout("tcp4", upstream, patience)
		if err != nil {
			continue
		}
		defer server.Close()
		var both sync.WaitGroup
		both.Go(func() { pour(server, client) })
		both.Go(func() { pour(client, server) })
		both.Wait()
		return
	}
}

// pour copies until the end, or until nothing has come for a while, and hands the end on.
func pour(to, from net.Conn) {
	buffer := make([]byte, 4096)
	for {
		_ = from.SetReadDeadline(time.Now().Add(quiet))
		n, err := from.Read(buffer)
		if n > 0 {
			_ = to.SetWriteDeadline(time.Now().Add(quiet))
			if _, failed := to.Write(buffer[:n]); failed != nil {
				err = failed
			}
		}
		if err == nil {
			continue
		}
		if half, ok := to.(*net.TCPConn); ok && err == io.EOF {
			_ = half.CloseWrite()
			return
		}
		_ = from.Close()
		_ = to.Close()
		return
	}
}
