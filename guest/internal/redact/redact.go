// Package redact replaces secret values in streams of bytes.
package redact

import (
	"bytes"
	"slices"
)

// Mark is what stands in place of a value.
const Mark = "***"

// Values are what to replace. Where several begin at the same byte, the longest counts; what a replaced one overlaps is none.
type Values struct {
	// byFirst has the values by their first byte, the longest first.
	byFirst [256][][]byte
}

// New returns values to replace, or nil where there are none but empty ones.
func New(values []string) *Values {
	v := &Values{}
	found := false
	for _, value := range values {
		if value != "" {
			found = true
			v.byFirst[value[0]] = append(v.byFirst[value[0]], []byte(value))
		}
	}
	if !found {
		return nil
	}
	for _, group := range v.byFirst {
		slices.SortFunc(group, func(a, b []byte) int { return len(b) - len(a) })
	}
	return v
}

// Stream replaces values in one stream, however that is split.
type Stream struct {
	values *Values
	// held may be the beginning of a value.
	held []byte
}

// NewStream returns the beginning of a stream.
func NewStream(values *Values) *Stream { return &Stream{values: values} }

// Append appends to dst what comes of the stream's next bytes. What may be the beginning of a value is held back.
func (s *Stream) Append(dst, b []byte) []byte {
	if len(s.held) > 0 {
		s.held = append(s.held, b...)
		b = s.held
	}
	dst, rest := s.values.replace(dst, b, false)
	s.held = append(s.held[:0], rest...)
	return dst
}

// Flush appends to dst what is held back, of a stream that has ended.
func (s *Stream) Flush(dst []byte) []byte {
	dst, _ = s.values.replace(dst, s.held, true)
	s.held = nil
	return dst
}

// replace also returns what more bytes than b, which are to come unless it is the last, have to decide on.
func (v *Values) replace(dst, b []byte, last bool) (out, rest []byte) {
	done := 0 // what is before has been appended
	for i := 0; i < len(b); {
		group := v.byFirst[b[i]]
		if group == nil {
			i++
			continue
		}
		n, undecided := longest(group, b[i:], last)
		switch {
		case undecided:
			return append(dst, b[done:i]...), b[i:]
		case n > 0:
			dst = append(append(dst, b[done:i]...), Mark...)
			i += n
			done = i
		default:
			i++
		}
	}
	return append(dst, b[done:]...), nil
}

// longest returns the length of the longest value that b begins with, unless b ends within a longer one.
func longest(group [][]byte, b []byte, last bool) (n int, undecided bool) {
	for _, value := range group {
		switch {
		case bytes.HasPrefix(b, value):
			return len(value), false
		case !last && len(value) > len(b) && bytes.HasPrefix(value, b):
			return 0, true
		}
	}
	return 0, false
}
