// Package frame encodes and decodes the protocol's frames.
package frame

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
)

// Type tells what a frame is.
type Type uint8

// The frame types.
const (
	Hello Type = 1 + iota
	Open
	Event
	Data
	Stdout
	Stderr
	End
	Credit
	Gap
	Result
	Error
	Close
	Ping
	Pong
)

// Sizes that the protocol fixes, in bytes.
const (
	HeaderSize = 8
	MaxPayload = 1 << 20
	MaxData    = 1 << 16
	maxEcho    = 64
	maxEnd     = 4 << 10
)

// Frame is one decoded frame.
type Frame struct {
	Type    Type
	Channel uint32
	// Payload is valid until the decoder's next call.
	Payload []byte
}

// Malformed is a frame that no receiver may accept.
type Malformed struct{ detail string }

func (e *Malformed) Error() string { return "malformed frame: " + e.detail }

// AppendHeader appends the header of a frame whose payload is n bytes long.
func AppendHeader(dst []byte, t Type, channel uint32, n int) []byte {
	dst = append(dst, byte(n>>16), byte(n>>8), byte(n), byte(t))
	return binary.BigEndian.AppendUint32(dst, channel)
}

// Append appends a whole frame.
func Append(dst []byte, t Type, channel uint32, payload []byte) []byte {
	return append(AppendHeader(dst, t, channel, len(payload)), payload...)
}

// AppendJSON appends a frame whose payload is v in JSON; it fails when that exceeds MaxPayload.
func AppendJSON(dst []byte, t Type, channel uint32, v any) ([]byte, error) {
	payload, err := json.Marshal(v)
	if err != nil {
		return dst, err
	}
	if len(payload) > MaxPayload {
		return dst, fmt.Errorf("a payload of %d bytes exceeds the limit of %d", len(payload), MaxPayload)
	}
	return Append(dst, t, channel, payload), nil
}

// AppendCredit appends a CREDIT frame.
func AppendCredit(dst []byte, channel uint32, n uint32) []byte {
	return binary.BigEndian.AppendUint32(AppendHeader(dst, Credit, channel, 4), n)
}

// AppendGap appends a GAP frame.
func AppendGap(dst []byte, channel uint32, n uint64) []byte {
	return binary.BigEndian.AppendUint64(AppendHeader(dst, Gap, channel, 8), n)
}

// check refuses what no direction and no state allows.
func check(t Type, channel uint32, n int) error {
	if n > MaxPayload {
		return &Malformed{fmt.Sprintf("length %d", n)}
	}
	ok := true
	switch t {
	case Hello, Open, Event, Result, Error:
	case Data, Stdout, Stderr:
		ok = n >= 1 && n <= MaxData
	case Close:
		ok = n == 0
	case End:
		ok = n <= maxEnd
	case Credit:
		ok = n == 4
	case Gap:
		ok = n == 8
	case Ping, Pong:
		ok = n <= maxEcho
	default:
		return &Malformed{fmt.Sprintf("type %#02x", uint8(t))}
	}
	if !ok {
		return &Malformed{fmt.Sprintf("type %#02x with length %d", uint8(t), n)}
	}
	linkLevel := t == Hello || t == Ping || t == Pong
	either := t == Event // of an operation, or of the guest
	if !either && linkLevel != (channel == 0) {
		return &Malformed{fmt.Sprintf("type %#02x on channel %d", uint8(t), channel)}
	}
	return nil
}
