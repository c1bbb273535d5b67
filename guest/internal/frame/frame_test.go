package frame

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestFramesSurviveAnyFragmentation(t *testing.T) {
	var stream []byte
	stream = Append(stream, Hello, 0, []byte(`{"version":1}`))
	stream = Append(stream, Data, 7, bytes.Repeat([]byte("x"), MaxData))
	stream = AppendCredit(stream, 0xFFFFFFFF, 0xFFFFFFFF)
	stream = AppendGap(stream, 7, 1<<40)
	stream = Append(stream, End, 7, nil)
	stream = Append(stream, Event, 0, []byte(`{"event":"ending"}`))
	stream = Append(stream, Event, 7, []byte(`{"event":"started"}`))
	stream = Append(stream, Open, 8, bytes.Repeat([]byte(" "), MaxPayload))
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(stream),
		"half":  iotest.HalfReader(bytes.NewReader(stream)),
		"bytes": iotest.OneByteReader(bytes.NewReader(stream)),
		"eof":   iotest.DataErrReader(bytes.NewReader(stream)),
	} {
		t.Run(name, func(t *testing.T) {
			d := NewDecoder(r)
			var again []byte
			for {
				f, err := d.Next()
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Fatal(err)
				}
				again = Append(again, f.Type, f.Channel, f.Payload)
			}
			if !bytes.Equal(again, stream) {
				t.Fatal("the frames differ")
			}
		})
	}
}

func TestTruncatedFrames(t *testing.T) {
	whole := Append(nil, Open, 1, []byte(`{"op":"ps"}`))
	for n := 1; n < len(whole); n++ {
		_, err := NewDecoder(bytes.NewReader(whole[:n])).Next()
		if err != io.ErrUnexpectedEOF {
			t.Fatalf("after %d bytes: %v", n, err)
		}
	}
}

func TestMalformedFrames(t *testing.T) {
	for name, raw := range map[string][]byte{
		"oversized":      AppendHeader(nil, Open, 1, MaxPayload+1),
		"oversized DATA": AppendHeader(nil, Data, 1, MaxData+1),
		"empty STDOUT":   AppendHeader(nil, Stdout, 1, 0),
		"END too long":   AppendHeader(nil, End, 1, maxEnd+1),
		"short CREDIT":   AppendHeader(nil, Credit, 1, 3),
		"long GAP":       AppendHeader(nil, Gap, 1, 9),
		"long PING":      AppendHeader(nil, Ping, 0, 65),
		"unknown type":   AppendHeader(nil, Pong+1, 1, 0),
		"type zero":      AppendHeader(nil, 0, 1, 0),
		"OPEN on 0":      AppendHeader(nil, Open, 0, 2),
		"RESULT on 0":    AppendHeader(nil, Result, 0, 2),
		"PING on 1":      AppendHeader(nil, Ping, 1, 2),
	} {
		var malformed *Malformed
		if _, err := NewDecoder(bytes.NewReader(raw)).Next(); !errors.As(err, &malformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLimit(t *testing.T) {
	d := NewDecoder(bytes.NewReader(Append(nil, Hello, 0, make([]byte, 100))))
	d.SetLimit(99)
	var malformed *Malformed
	if _, err := d.Next(); !errors.As(err, &malformed) {
		t.Fatal(err)
	}
}

func TestDecoderDoesNotAllocateAheadOfWhatItReads(t *testing.T) {
	d := NewDecoder(bytes.NewReader(AppendHeader(nil, Open, 1, MaxPayload)))
	if _, err := d.Next(); err != io.ErrUnexpectedEOF {
		t.Fatal(err)
	}
	if len(d.buf) > MaxPayload+HeaderSize {
		t.Fatalf("a buffer of %d bytes", len(d.buf))
	}
}

func FuzzDecoder(f *testing.F) {
	f.Add(Append(nil, Open, 1, []byte(`{"op":"ps"}`)))
	f.Add(append(Append(nil, Data, 1, []byte("x")), AppendCredit(nil, 2, 9)...))
	f.Add([]byte{0xFF, 0xFF, 0xFF, 2, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		d := NewDecoder(iotest.HalfReader(bytes.NewReader(raw)))
		var again []byte
		for {
			fr, err := d.Next()
			if err != nil {
				break
			}
			if err := check(fr.Type, fr.Channel, len(fr.Payload)); err != nil {
				t.Fatal(err)
			}
			again = Append(again, fr.Type, fr.Channel, fr.Payload)
		}
		if !bytes.HasPrefix(raw, again) {
			t.Fatal("the frames are not those of the stream")
		}
	})
}
