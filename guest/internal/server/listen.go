package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"agentic-isolation/guest/internal/link"
)

const (
	// maxStrangers bounds the connections that have not proved themselves, as does a share of the descriptors, which
	// others need. Beyond it the oldest goes: a service needs a few milliseconds, so a workload that opens sockets in heaps
	// does not keep it out.
	maxStrangers   = 128
	strangersShare = 4
	acceptPause    = 20 * time.Millisecond
)

func listen(socket string) (net.Listener, error) {
	if !strings.HasPrefix(socket, "@") {
		// A guest that was killed has left its socket behind.
		if info, err := os.Lstat(socket); err == nil && info.Mode()&os.ModeSocket != 0 {
			_ = os.Remove(socket)
		}
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(socket, "@") {
		if err := os.Chmod(socket, 0o600); err != nil {
			listener.Close()
			return nil, err
		}
	}
	return listener, nil
}

// admit serves connections until the listener is closed.
func (g *Guest) admit(listener net.Listener) {
	strangers := &strangers{}
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of descriptors, most likely; that passes.
			time.Sleep(acceptPause)
			continue
		}
		strangers.add(conn)
		go g.serve(conn, strangers)
	}
}

func (g *Guest) serve(conn net.Conn, strangers *strangers) {
	l := link.New(conn, g)
	admitted := false
	err := l.Serve(&g.id, func() {
		admitted = true
		strangers.remove(conn)
		g.mu.Lock()
		g.links[l] = struct{}{}
		if g.parting != nil {
			l.Announce(g.parting)
		}
		g.mu.Unlock()
	})
	strangers.remove(conn)
	g.mu.Lock()
	delete(g.links, l)
	g.mu.Unlock()
	// Strangers are not worth a line each: a workload could fill the log.
	if admitted && err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		fmt.Fprintf(os.Stderr, "agentic-guest: a link ended: %v\n", err)
	}
}
