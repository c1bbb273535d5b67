// Package link is the guest's end of one byte stream to the service: handshake, channels, credit.
package link

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"
	"unicode/utf8"

	"agentic-isolation/guest/internal/frame"
)

const maxChannels = 4096

// Service performs operations.
type Service interface {
	// Open is called for each operation, in the order of arrival, and must not block. It returns what performs the
	// operation, on a goroutine of its own. The request is valid during the call only.
	Open(ch *Channel, op string, request []byte) (perform func())
}

// Link is one connection to the service.
type Link struct {
	conn    net.Conn
	service Service
	out     *writer
	// version is that of the protocol, known from the handshake on.
	version int

	mu       sync.Mutex
	channels map[uint32]*Channel
	ended    bool
	tasks    sync.WaitGroup
	idle     chan struct{}
}

// New makes a link of a connection. Serve does the rest.
func New(conn net.Conn, service Service) *Link {
	return &Link{conn: conn, service: service, out: newWriter(conn), channels: map[uint32]*Channel{}, idle: make(chan struct{}, 1)}
}

// Serve performs the handshake, calls admitted, and serves until the link ends; then it closes the connection and
// waits for the link's operations to wind up. It returns why the link ended; an orderly end is io.EOF.
func (l *Link) Serve(id *Identity, admitted func()) (err error) {
	defer l.guard()
	defer l.tasks.Wait()
	defer l.end()
	decoder := frame.NewDecoder(l.conn)
	var conclude func() error
	if l.version, conclude, err = shake(l.conn, decoder, id); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	// Before the peer is told: what it takes for its link must not have to make room for strangers any more.
	admitted()
	if err = conclude(); err != nil {
		return fmt.Errorf("handshake: %w", err)
	}
	l.tasks.Go(func() {
		defer l.end()
		_ = l.out.run() // the reader learns the same
	})
	for {
		f, err := decoder.Next()
		if err != nil {
			return err
		}
		if err := l.accept(f); err != nil {
			return err
		}
	}
}

// guard ends the link on a panic, and only the link: the guest holds other people's processes. The stack tells of
// the mistake.
func (l *Link) guard() {
	if r := recover(); r != nil {
		fmt.Fprintf(os.Stderr, "agentic-guest: panic, the link is closed: %v\n%s", r, debug.Stack())
		l.end()
	}
}

// Announce sends an EVENT that belongs to no operation, without waiting. Links of version 1, which has none, and those
// whose service does not read, go without it.
func (l *Link) Announce(v any) {
	if l.version < 2 {
		return
	}
	out, err := frame.AppendJSON(nil, frame.Event, 0, v)
	if err != nil {
		return
	}
	_ = l.out.appendNow(func(queue []byte) []byte { return append(queue, out...) })
}

// Drain waits until every operation has ended and all that they have queued is written.
func (l *Link) Drain(limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for l.open() > 0 {
		select {
		case <-l.idle:
		case <-timer.C:
			return
		}
	}
	l.out.flush(limit)
}

func (l *Link) open() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.channels)
}

// Close ends the link.
func (l *Link) Close() { l.end() }

func (l *Link) end() {
	l.mu.Lock()
	already := l.ended
	l.ended = true
	channels := l.channels
	l.channels = nil
	l.mu.Unlock()
	if already {
		return
	}
	l.conn.Close()
	l.out.end()
	for _, ch := range channels {
		ch.close()
	}
	notify(l.idle)
}

var (
	errDirection = errors.New("a frame that only the guest may send")
	errChannel   = errors.New("a frame that its channel does not allow")
)

// accept handles one frame. An error ends the link.
func (l *Link) accept(f frame.Frame) error {
	switch f.Type {
	case frame.Open:
		return l.begin(f)
	case frame.Ping:
		return l.out.appendNow(func(q []byte) []byte { return frame.Append(q, frame.Pong, 0, f.Payload) })
	case frame.Pong:
		return nil
	case frame.Data, frame.End, frame.Credit, frame.Close:
	case frame.Hello:
		return errors.New("a second HELLO")
	default:
		return errDirection
	}
	l.mu.Lock()
	ch := l.channels[f.Channel]
	l.mu.Unlock()
	if ch == nil {
		return nil
	}
	switch f.Type {
	case frame.Data:
		return ch.receive(f.Payload)
	case frame.End:
		return ch.receiveEnd(f.Payload)
	case frame.Credit:
		ch.addCredit(binary.BigEndian.Uint32(f.Payload))
	case frame.Close:
		ch.close()
	}
	return nil
}

func (l *Link) begin(f frame.Frame) error {
	var request struct {
		Op string `json:"op"`
	}
	if !utf8.Valid(f.Payload) || json.Unmarshal(f.Payload, &request) != nil || request.Op == "" {
		return errors.New("an OPEN that is not a JSON object with an op")
	}
	ch := newChannel(l, f.Channel)
	l.mu.Lock()
	switch {
	case l.ended:
		l.mu.Unlock()
		return errEnded
	case l.channels[f.Channel] != nil:
		l.mu.Unlock()
		return fmt.Errorf("an OPEN of channel %d, which is open", f.Channel)
	case len(l.channels) >= maxChannels:
		l.mu.Unlock()
		return fmt.Errorf("more than %d open channels", maxChannels)
	}
	l.channels[f.Channel] = ch
	l.mu.Unlock()
	ch.Go(l.service.Open(ch, request.Op, f.Payload))
	return nil
}

func (l *Link) remove(ch *Channel) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.channels, ch.id)
	if len(l.channels) == 0 {
		notify(l.idle)
	}
}
