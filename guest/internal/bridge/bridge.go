// Package bridge copies standard input and output to and from the guest's socket, for providers that can only start
// a process inside the workspace.
package bridge

import (
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"agentic-isolation/guest/internal/kernel"
)

const (
	bufferSize = 256 << 10
	// dialLimit covers a workspace whose guest is just starting.
	dialLimit = 5 * time.Second
	firstWait = 5 * time.Millisecond
	lastWait  = 100 * time.Millisecond
	// farewell is how long the guest has to end the link once the service has gone. Under gVisor a workload of its user
	// can stop it, and the engine's host would keep a process for each bridge that waits.
	farewell = 5 * time.Second
	// takeLimit is how long the guest may take nothing of what the service sends: it takes everything at once.
	takeLimit = time.Minute
)

// Main is the bridge process. It returns the exit code.
func Main(socket string) int {
	// The service's link passes through this process's memory.
	if err := kernel.ForbidTracing(); err != nil {
		return complain("cannot forbid tracing", err)
	}
	conn, err := dial(socket)
	if err != nil {
		return complain("cannot reach the guest", err)
	}
	defer conn.Close()
	go func() {
		if _, err := io.CopyBuffer(guestWriter{conn}, onlyReader{os.Stdin}, make([]byte, bufferSize)); err != nil {
			conn.Close()
			return
		}
		_ = conn.CloseWrite()
		_ = conn.SetReadDeadline(time.Now().Add(farewell))
	}()
	if _, err := io.CopyBuffer(onlyWriter{os.Stdout}, onlyReader{conn}, make([]byte, bufferSize)); err != nil {
		return complain("the link broke", err)
	}
	return 0
}

func dial(socket string) (*net.UnixConn, error) {
	limit := time.Now().Add(dialLimit)
	for wait := firstWait; ; wait = min(2*wait, lastWait) {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
		if err == nil || time.Now().After(limit) {
			return conn, err
		}
		time.Sleep(wait)
	}
}

// onlyReader and onlyWriter hide the methods by which io.Copy would pick a way of its own.
type (
	onlyReader struct{ io.Reader }
	onlyWriter struct{ io.Writer }
)

// guestWriter gives up on a guest that takes nothing.
type guestWriter struct{ conn net.Conn }

func (w guestWriter) Write(data []byte) (int, error) {
	if err := w.conn.SetWriteDeadline(time.Now().Add(takeLimit)); err != nil {
		return 0, err
	}
	return w.conn.Write(data)
}

func complain(what string, err error) int {
	fmt.Fprintf(os.Stderr, "agentic-guest bridge: %s: %v\n", what, err)
	return 1
}
