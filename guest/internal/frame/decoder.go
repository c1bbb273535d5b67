package frame

import (
	"encoding/binary"
	"fmt"
	"io"
)

const firstBuffer = 4 << 10

// Decoder reads frames from a stream. It is not safe for concurrent use.
type Decoder struct {
	r          io.Reader
	buf        []byte
	start, end int
	limit      int
}

// NewDecoder returns a decoder that accepts payloads up to MaxPayload.
func NewDecoder(r io.Reader) *Decoder { return &Decoder{r: r, limit: MaxPayload} }

// SetLimit lowers or restores the longest payload that is accepted.
func (d *Decoder) SetLimit(n int) { d.limit = n }

// Buffered returns the number of bytes read from the stream but not yet returned.
func (d *Decoder) Buffered() int { return d.end - d.start }

// Next returns the next frame. It returns io.EOF only between frames, and a *Malformed for what no
// receiver may accept; after either the decoder is of no further use.
func (d *Decoder) Next() (Frame, error) {
	if err := d.fill(HeaderSize); err != nil {
		return Frame{}, err
	}
	h := d.buf[d.start:]
	n := int(h[0])<<16 | int(h[1])<<8 | int(h[2])
	f := Frame{Type: Type(h[3]), Channel: binary.BigEndian.Uint32(h[4:8])}
	if err := check(f.Type, f.Channel, n); err != nil {
		return Frame{}, err
	}
	if n > d.limit {
		return Frame{}, &Malformed{fmt.Sprintf("length %d where %d is the limit", n, d.limit)}
	}
	if err := d.fill(HeaderSize + n); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	f.Payload = d.buf[d.start+HeaderSize : d.start+HeaderSize+n]
	d.start += HeaderSize + n
	return f, nil
}

// fill reads until the buffer holds n bytes.
func (d *Decoder) fill(n int) error {
	if d.end-d.start >= n {
		return nil
	}
	d.makeRoom(n)
	for d.end-d.start < n {
		m, err := d.r.Read(d.buf[d.end:])
		d.end += m
		if d.end-d.start >= n {
			return nil
		}
		if err != nil {
			if err == io.EOF && d.end > d.start {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

func (d *Decoder) makeRoom(n int) {
	if d.start == d.end {
		d.start, d.end = 0, 0
	}
	if d.start+n <= len(d.buf) {
		return
	}
	if n <= len(d.buf) {
		d.end = copy(d.buf, d.buf[d.start:d.end])
		d.start = 0
		return
	}
	grown := make([]byte, max(n, 2*len(d.buf), firstBuffer))
	d.end = copy(grown, d.buf[d.start:d.end])
	d.start, d.buf = 0, grown
}
