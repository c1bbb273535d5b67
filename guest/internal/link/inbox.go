package link

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"

	"agentic-isolation/guest/internal/frame"
)

// inbox is what the service has sent on a channel and the operation has not yet taken. Credit bounds it.
type inbox struct {
	// wanted: the operation takes data at all.
	wanted bool
	// wantsClaim: END may tell what the data comes to.
	wantsClaim bool
	data       []byte
	window     int64
	end        bool
	claim      []byte
	arrived    chan struct{}
}

// ErrStopped tells that whoever received was stopped.
var ErrStopped = errors.New("stopped")

// AcceptData makes the channel take DATA and END. It must be called within Open.
func (ch *Channel) AcceptData() { ch.in.wanted = true }

// AcceptClaim makes the channel also take an END with a JSON object. It must be called within Open.
func (ch *Channel) AcceptClaim() { ch.in.wantsClaim = true }

// Claim is the JSON object of END, nil if there was none. It is known once Receive has returned io.EOF.
func (ch *Channel) Claim() []byte {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.in.claim
}

func (ch *Channel) receive(b []byte) error {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	switch {
	case ch.ended:
		return nil
	case !ch.in.wanted || ch.in.end:
		return errChannel
	case ch.in.window <= 0:
		return errWindow
	}
	ch.in.window -= int64(len(b))
	ch.in.data = append(ch.in.data, b...)
	notify(ch.in.arrived)
	return nil
}

func (ch *Channel) receiveEnd(claim []byte) error {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	switch {
	case ch.ended:
		return nil
	case !ch.in.wanted || ch.in.end:
		return errChannel
	case len(claim) > 0:
		var object map[string]json.RawMessage
		if !ch.in.wantsClaim || !utf8.Valid(claim) || json.Unmarshal(claim, &object) != nil || object == nil {
			return errChannel
		}
		ch.in.claim = bytes.Clone(claim)
	}
	ch.in.end = true
	notify(ch.in.arrived)
	return nil
}

// Receive returns all that has arrived since the last call and takes spare, if any, to gather the next in. It blocks
// while there is nothing, and returns io.EOF after END, ErrClosed when the channel is closed or has ended.
func (ch *Channel) Receive(spare []byte) ([]byte, error) { return ch.ReceiveUntil(nil, spare) }

// ReceiveUntil is Receive that returns ErrStopped once stop is closed and nothing has arrived.
func (ch *Channel) ReceiveUntil(stop <-chan struct{}, spare []byte) ([]byte, error) {
	for {
		ch.mu.Lock()
		data, end := ch.in.data, ch.in.end
		if len(data) > 0 {
			ch.in.data = spare[:0]
			ch.mu.Unlock()
			return data, nil
		}
		ch.mu.Unlock()
		if end {
			return nil, io.EOF
		}
		select {
		case <-ch.in.arrived:
		case <-ch.closed:
			return nil, ErrClosed
		case <-ch.over:
			return nil, ErrClosed
		case <-stop:
			return nil, ErrStopped
		}
	}
}

// Grant lets the service send n more bytes.
func (ch *Channel) Grant(n int) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.ended {
		return
	}
	ch.in.window += int64(n)
	err := ch.link.out.appendNow(func(queue []byte) []byte { return frame.AppendCredit(queue, ch.id, uint32(n)) })
	if err != nil {
		ch.link.conn.Close() // the reader ends the link
	}
}
