//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"testing"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/guesttest"
	"agentic-isolation/guest/internal/link"
)

// granted sums the CREDIT of a channel up to its end.
func granted(t *testing.T, ch *guesttest.Channel) (credit uint64, end frame.Frame) {
	t.Helper()
	for {
		f, ok := ch.Next()
		if !ok {
			t.Fatal("the link has ended")
		}
		switch f.Type {
		case frame.Credit:
			credit += uint64(binary.BigEndian.Uint32(f.Payload))
		case frame.Result, frame.Error:
			return credit, f
		}
	}
}

// wantTaken wants an input to end with so many bytes taken.
func wantTaken(t *testing.T, ch *guesttest.Channel, offset int) {
	t.Helper()
	if o := ch.Finish(); o.Err != nil || o.Result["offset"] != float64(offset) || o.Result["ended"] != true {
		t.Fatalf("%v %v, want %d", o.Result, o.Err, offset)
	}
}

func withInput(members map[string]any) map[string]any {
	all := map[string]any{"process_id": "p", "input": true}
	for k, v := range members {
		all[k] = v
	}
	return all
}

func TestInputOfManyWriters(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", runOf(withInput(nil), "cat"))
	ch.AwaitEvent()
	wantFault(t, c.Do("input", map[string]any{"process_id": "missing"}), fault.ProcessNotFound)
	first, offset := writer(t, c, map[string]any{"process_id": "p"})
	if offset != 0 {
		t.Fatal(offset)
	}
	first.Send([]byte("one "))
	ch.AwaitOutput(4)
	wantFault(t, c.Do("input", map[string]any{"process_id": "p"}), fault.InputTaken)
	second, offset := writer(t, g.Connect(), map[string]any{"process_id": "p", "take": true})
	if offset != 4 {
		t.Fatal(offset)
	}
	wantFault(t, first.Finish(), fault.InputTaken)
	second.Send([]byte("two "))
	ch.AwaitOutput(4)
	second.Close() // which is no end
	wantFault(t, second.Finish(), fault.Cancelled)
	third, offset := writer(t, c, map[string]any{"process_id": "p"})
	if offset != 8 {
		t.Fatal(offset)
	}
	third.Send([]byte("three"))
	third.End()
	wantTaken(t, third, 13)
	o := ch.Finish()
	wantExit(t, o, 0, "exited")
	if string(o.Stdout) != "three" {
		t.Fatalf("%q", o.Stdout)
	}
}

func TestInputIsFreeOnceItsWriterWasClosed(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	ch := c.Open("run", runOf(withInput(nil), "cat"))
	ch.AwaitEvent()
	before, _ := writer(t, c, map[string]any{"process_id": "p"})
	for range 300 {
		before.Close()
		before, _ = writer(t, c, map[string]any{"process_id": "p"})
	}
	before.End()
	wantExit(t, ch.Finish(), 0, "exited")
}

func TestInputIsGrantedAsItIsTaken(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", sh(withInput(nil), "head -c 100000 | wc -c; sleep 60"))
	ch.AwaitEvent()
	first, _ := writer(t, c, map[string]any{"process_id": "p"})
	first.Send(bytes.Repeat([]byte("x"), link.Window))
	if got := strings.TrimSpace(string(ch.AwaitOutput(7).Stdout)); got != "100000" {
		t.Fatal(got)
	}
	// The pipe is full now, and the writer blocked; a new one stops it in the middle.
	second, offset := writer(t, c, map[string]any{"process_id": "p", "take": true})
	credit, end := granted(t, first)
	if end.Type != frame.Error || offset != float64(credit) || credit < 100_000 || credit >= link.Window {
		t.Fatalf("%v of %d, offset %v", end.Type, credit, offset)
	}
	second.Send(bytes.Repeat([]byte("y"), link.Window))
	// So does losing interest, and the process's end.
	second.Close()
	wantFault(t, second.Finish(), fault.Cancelled)
	third, offset := writer(t, c, map[string]any{"process_id": "p"})
	third.Send(bytes.Repeat([]byte("z"), link.Window))
	c.Do("kill", map[string]any{"process_id": "p"})
	credit, end = granted(t, third)
	if want := fmt.Sprintf(`{"offset":%d,"ended":true}`, uint64(offset)+credit); string(end.Payload) != want {
		t.Fatalf("%v %s, not %s", end.Type, end.Payload, want)
	}
}

func TestWritersThatTakeOverFromEachOther(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", runOf(withInput(nil), "wc", "-c"))
	ch.AwaitEvent()
	links := []*guesttest.Client{c, g.Connect(), g.Connect()}
	var last *guesttest.Channel
	want := 0.0
	for i := range 60 {
		next, offset := writer(t, links[i%len(links)], map[string]any{"process_id": "p", "take": true})
		if last != nil {
			credit, end := granted(t, last)
			if want += float64(credit); end.Type != frame.Error || offset != want {
				t.Fatalf("%v: at %v, not %v", end.Type, offset, want)
			}
		}
		// It is stopped somewhere in the middle.
		next.Send(bytes.Repeat([]byte("x"), 100_000))
		last = next
	}
	last.End()
	credit, _ := granted(t, last)
	o := ch.Finish()
	if got := strings.TrimSpace(string(o.Stdout)); got != fmt.Sprint(uint64(want)+credit) {
		t.Fatalf("%s have come of %v", got, want+float64(credit))
	}
}

func TestInputThatNobodyReads(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	ch := c.Open("run", sh(withInput(nil), "exec <&-; echo closed; sleep 60"))
	ch.AwaitEvent()
	awaitText(t, ch, "closed")
	in, _ := writer(t, c, map[string]any{"process_id": "p"})
	const size = 3 * link.Window
	left := in.SendAll(make([]byte, size), link.Window)
	in.End()
	credit, end := granted(t, in)
	if end.Type != frame.Result || left+int(credit) != link.Window {
		t.Fatalf("%v %s, %d of %d", end.Type, end.Payload, left+int(credit), link.Window)
	}
	if again := c.Open("input", map[string]any{"process_id": "p"}); again.AwaitEvent()["ended"] != true || again.Finish().Result["offset"] != float64(size) {
		t.Fatal("the input has not ended")
	}
}

func TestInputOfWhatHasNone(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	wantFault(t, c.Do("run", runOf(withInput(map[string]any{"stdin": true}), "cat")), fault.BadRequest)
	wantFault(t, c.Do("run", runOf(inTerminal(map[string]any{"stdin": true}), "cat")), fault.BadRequest)
	wantFault(t, c.Do("run", runOf(map[string]any{"terminal": map[string]any{"columns": 80}}, "cat")), fault.BadRequest)
	for _, members := range []map[string]any{{"process_id": "p"}, {"process_id": "p", "stdin": true}} {
		ch := c.Open("run", runOf(members, "sleep", "60"))
		ch.AwaitEvent()
		wantFault(t, c.Do("input", map[string]any{"process_id": "p"}), fault.BadRequest)
		c.Do("kill", map[string]any{"process_id": "p"})
		ch.Finish()
	}
}

func TestInputStaysOpenWithoutAWriter(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", runOf(withInput(map[string]any{"linger_ms": -1, "request": "r"}), "cat"))
	ch.AwaitEvent() // nothing is collected first
	in, _ := writer(t, c, map[string]any{"process_id": "p"})
	in.Send([]byte("half"))
	ch.AwaitOutput(4)
	c.Conn.Close()
	c = g.Connect()
	wantFault(t, c.Do("run", runOf(withInput(map[string]any{"linger_ms": -1, "request": "r"}), "cat")), fault.ProcessExists)
	eventually(t, "the writer has gone", func() bool {
		in = c.Open("input", map[string]any{"process_id": "p"})
		f, _ := in.Next()
		return f.Type == frame.Event
	})
	in.Send([]byte(" and half"))
	in.End()
	o := c.Do("attach", map[string]any{"process_id": "p"})
	wantExit(t, o, 0, "exited")
	if string(o.Stdout) != "half and half" {
		t.Fatalf("%q", o.Stdout)
	}
}

func TestWait(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	other := g.Connect()
	eventually(t, "one that waits is there before the process has ended", func() bool {
		ch := c.Open("run", runOf(withInput(nil), "cat"))
		ch.AwaitEvent()
		wait := other.Open("wait", map[string]any{"process_id": "p"})
		given := c.Open("wait", map[string]any{"process_id": "p"})
		given.Close()
		wantFault(t, given.Finish(), fault.Cancelled)
		ch.Close() // waiting does not keep it alive
		ch.Finish()
		o := wait.Finish()
		if o.Err != nil && o.Err.Reason == fault.ProcessNotFound {
			return false
		}
		if o.Err != nil || o.Result["cause"] != "killed" {
			t.Fatalf("%v %v", o.Result, o.Err)
		}
		return true
	})
	eventually(t, "it is forgotten", func() bool {
		o := c.Do("wait", map[string]any{"process_id": "p"})
		return o.Err != nil && o.Err.Reason == fault.ProcessNotFound
	})
}
