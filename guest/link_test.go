//go:build linux

package main

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/guesttest"
)

func helloOf(t *testing.T, conn net.Conn) (nonce string, decoder *frame.Decoder) {
	t.Helper()
	decoder = frame.NewDecoder(conn)
	f, err := decoder.Next()
	must(t, err)
	var hello struct {
		Versions []int
		Guest    string
		Nonce    string
	}
	must(t, json.Unmarshal(f.Payload, &hello))
	if hello.Versions[0] != 1 || hello.Versions[1] != 4 || len(hello.Nonce) != 32 || hello.Guest != "dev" {
		t.Fatalf("%+v", hello)
	}
	return hello.Nonce, decoder
}

func TestHandshakeRefusals(t *testing.T) {
	g := guesttest.Start(t, nil)
	nonce := strings.Repeat("ab", 16)
	good := func(n string) map[string]any {
		return map[string]any{"version": 1, "nonce": nonce, "proof": guesttest.Proof(guesttest.Key, "service", n, nonce)}
	}
	with := func(key string, value any) func(string) []byte {
		return func(n string) []byte {
			hello := good(n)
			hello[key] = value
			b, _ := frame.AppendJSON(nil, frame.Hello, 0, hello)
			return b
		}
	}
	for name, answer := range map[string]func(nonce string) []byte{
		"wrong key": func(n string) []byte {
			return with("proof", guesttest.Proof(make([]byte, 32), "service", n, nonce))(n)
		},
		"guest's own proof": func(n string) []byte {
			return with("proof", guesttest.Proof(guesttest.Key, "guest", n, nonce))(n)
		},
		"no proof":         with("proof", nil),
		"version":          with("version", 5),
		"version zero":     with("version", 0),
		"short nonce":      with("nonce", "ab"),
		"wrong shape":      with("nonce", 5),
		"not a HELLO":      func(string) []byte { return frame.Append(nil, frame.Open, 1, []byte(`{"op":"ps"}`)) },
		"not JSON":         func(string) []byte { return frame.Append(nil, frame.Hello, 0, []byte("hello")) },
		"a huge HELLO":     func(string) []byte { return frame.Append(nil, frame.Hello, 0, make([]byte, 5000)) },
		"something else":   func(string) []byte { return []byte("GET / HTTP/1.1\r\n\r\n") },
		"HELLO on channel": func(string) []byte { return frame.Append(nil, frame.Hello, 1, []byte("{}")) },
	} {
		t.Run(name, func(t *testing.T) {
			conn := g.Raw()
			n, _ := helloOf(t, conn)
			_, _ = conn.Write(answer(n))
			if rest := guesttest.ReadToEnd(t, conn); len(rest) > 0 {
				t.Errorf("the guest answered %q", rest)
			}
		})
	}
	g.Connect().Ping("fine")
}

func TestNoncesAndBootID(t *testing.T) {
	g := guesttest.Start(t, nil)
	a, _ := helloOf(t, g.Raw())
	b, _ := helloOf(t, g.Raw())
	if a == b {
		t.Error("a nonce was used twice")
	}
	if g.Connect().BootID != g.Connect().BootID {
		t.Error("the boot id has changed")
	}
	if g.Connect().BootID == guesttest.Start(t, nil).Connect().BootID {
		t.Error("two guests have the same boot id")
	}
}

func TestStrangersDoNotKeepTheServiceOut(t *testing.T) {
	g := guesttest.Start(t, nil)
	for range 300 {
		g.Raw()
	}
	g.Connect().Ping("in")
}

func TestWhatEndsALink(t *testing.T) {
	g := guesttest.Start(t, nil)
	other := g.Connect()
	open := func(channel uint32, request string) []byte {
		return frame.Append(nil, frame.Open, channel, []byte(request))
	}
	sleep := open(7, `{"op":"run","process_id":"deaf","argv":["sleep","60"]}`)
	sleepToo := open(7, `{"op":"run","process_id":"deaf-too","argv":["sleep","60"]}`)
	join := func(parts ...[]byte) (all []byte) {
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	block := frame.Append(nil, frame.Data, 7, make([]byte, frame.MaxData))
	for name, bytes := range map[string][]byte{
		"unknown type":           frame.Append(nil, 0x2A, 1, nil),
		"type zero":              frame.Append(nil, 0, 1, nil),
		"too long":               {0xFF, 0xFF, 0xFF, 2, 0, 0, 0, 1},
		"long DATA":              frame.AppendHeader(nil, frame.Data, 1, frame.MaxData+1),
		"empty DATA":             frame.Append(nil, frame.Data, 1, nil),
		"second HELLO":           frame.Append(nil, frame.Hello, 0, []byte("{}")),
		"EVENT":                  frame.Append(nil, frame.Event, 1, []byte("{}")),
		"STDOUT":                 frame.Append(nil, frame.Stdout, 1, []byte("x")),
		"RESULT":                 frame.Append(nil, frame.Result, 1, []byte("{}")),
		"GAP":                    frame.AppendGap(nil, 1, 5),
		"OPEN on 0":              open(0, `{"op":"ps"}`),
		"OPEN no JSON":           open(1, `op`),
		"OPEN no object":         open(1, `["op"]`),
		"OPEN no op":             open(1, `{"path":"x"}`),
		"OPEN no UTF-8":          open(1, "{\"op\":\"ps\",\"x\":\"\xff\"}"),
		"OPEN twice":             join(open(7, `{"op":"write","path":"f"}`), open(7, `{"op":"ps"}`)),
		"CREDIT of 3 bytes":      frame.Append(nil, frame.Credit, 1, []byte("abc")),
		"long PING":              frame.Append(nil, frame.Ping, 0, make([]byte, 65)),
		"PING on a channel":      frame.Append(nil, frame.Ping, 3, nil),
		"DATA not wanted":        join(sleep, frame.Append(nil, frame.Data, 7, []byte("x"))),
		"END not wanted":         join(sleepToo, frame.Append(nil, frame.End, 7, nil)),
		"DATA after END":         join(open(8, `{"op":"run","process_id":"ended","argv":["sleep","60"],"stdin":true}`), frame.Append(nil, frame.End, 8, nil), frame.Append(nil, frame.Data, 8, []byte("x"))),
		"DATA beyond the credit": join(open(7, `{"op":"run","process_id":"flooded","argv":["sleep","60"],"stdin":true}`), block, block, block, block, block, block, block, block, block),
	} {
		t.Run(name, func(t *testing.T) {
			c := g.Connect()
			// The guest may answer before it reads what ends the link.
			c.Expect(7)
			c.Expect(8)
			_, _ = c.Conn.Write(bytes)
			c.AwaitEnd()
		})
	}
	other.Ping("not mine")
	awaitOnly(t, g, 4)
}

func TestFramesForClosedChannelsAreIgnored(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	ch := c.Open("ps", nil)
	ch.Finish()
	ch.Send([]byte("x"))
	ch.End()
	ch.Grant(5)
	ch.Close()
	c.Ping("still")
}

func TestTooManyChannels(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	for range 4096 {
		// An upload that waits for its DATA costs no process.
		c.Open("write", map[string]any{"path": "same"})
	}
	c.Ping("full")
	c.Open("ps", nil)
	c.AwaitEnd()
	eventually(t, "the uploads are gone", func() bool {
		o := g.Connect().Do("list", map[string]any{"path": "."})
		return o.Err == nil && len(o.Result["entries"].([]any)) == 0
	})
}

func TestCloseEndsEveryChannelOnce(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	upload := c.Open("write", map[string]any{"path": "f"})
	upload.Send([]byte("half"))
	upload.Close()
	upload.Close()
	wantFault(t, upload.Finish(), fault.Cancelled)
	if o := c.Do("list", map[string]any{"path": "."}); len(o.Result["entries"].([]any)) != 0 {
		t.Fatalf("%v", o.Result)
	}
}
