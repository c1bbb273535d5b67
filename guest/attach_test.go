//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/guesttest"
)

func pattern(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d\n", i)
	}
	return b.Bytes()[:n]
}

func TestResumeNeitherLosesNorDoublesAByte(t *testing.T) {
	g := guesttest.Start(t, nil)
	const size = 6_000_000
	want := pattern(size)
	must(t, os.WriteFile(filepath.Join(g.Root, "pattern"), want, 0o644))
	c := g.Connect()
	ch := c.Open("run", runOf(map[string]any{"process_id": "p", "linger_ms": 60_000}, "cat", "pattern"))
	var got []byte
	for cut := 300_000; ; cut += 700_000 {
		ended := false
		for len(got) < cut && !ended {
			f, _ := ch.Next()
			switch f.Type {
			case frame.Stdout:
				got = append(got, f.Payload...)
			case frame.Gap, frame.Error:
				t.Fatalf("type %v %s", f.Type, f.Payload)
			case frame.Result:
				ended = true
			}
		}
		if ended {
			break
		}
		c.Conn.Close()
		c = g.Connect()
		ch = c.Open("attach", map[string]any{"process_id": "p", "offset": len(got)})
		if e := ch.AwaitEvent(); e["event"] != "attached" || e["offset"] != float64(len(got)) || e["pid"] == nil {
			t.Fatalf("%v", e)
		}
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, which differ from the %d written", len(got), len(want))
	}
}

func TestTwoAttachments(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	first := c.Open("run", sh(map[string]any{"process_id": "p", "stdin": true}, "cat"))
	first.AwaitEvent()
	second := g.Connect().Open("attach", map[string]any{"process_id": "p"})
	second.AwaitEvent()
	want := pattern(200_000)
	first.Send(want)
	first.End()
	one, two := first.Finish(), second.Finish()
	if !bytes.Equal(one.Stdout, want) || !bytes.Equal(two.Stdout, want) {
		t.Fatalf("%d and %d bytes", len(one.Stdout), len(two.Stdout))
	}
	wantExit(t, one, 0, "exited")
	wantExit(t, two, 0, "exited")
}

func TestSlowAttachmentIsToldOfAGap(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	fast := c.Open("run", sh(map[string]any{"process_id": "p", "stdin": true}, "read x; head -c 5000000 /dev/zero; read x"))
	fast.AwaitEvent()
	slow := g.Connect().Open("attach", map[string]any{"process_id": "p"})
	slow.Manual = true
	slow.AwaitEvent()
	fast.Send([]byte("go\n"))
	fast.AwaitOutput(5_000_000)
	fast.End()
	wantExit(t, fast.Finish(), 1, "exited")
	got, gap := 0, uint64(0)
	slow.Manual = false
	slow.Grant(1 << 20)
	for {
		f, _ := slow.Next()
		if f.Type == frame.Result {
			break
		}
		switch f.Type {
		case frame.Stdout:
			got += len(f.Payload)
		case frame.Gap:
			gap += binary.BigEndian.Uint64(f.Payload)
		}
	}
	if gap == 0 || uint64(got)+gap != 5_000_000 {
		t.Fatalf("%d bytes and a gap of %d", got, gap)
	}
}

// watch reads a process's output to its end, and checks it against the whole.
func watch(ch *guesttest.Channel, whole []byte) error {
	at, gap := uint64(0), uint64(0)
	for {
		f, ok := ch.Next()
		switch {
		case !ok || f.Type == frame.Error:
			return fmt.Errorf("%v %s", f.Type, f.Payload)
		case f.Type == frame.Gap:
			gap += binary.BigEndian.Uint64(f.Payload)
			at += binary.BigEndian.Uint64(f.Payload)
		case f.Type == frame.Stdout:
			if end := at + uint64(len(f.Payload)); end > uint64(len(whole)) || !bytes.Equal(f.Payload, whole[at:end]) {
				return fmt.Errorf("%d wrong bytes at %d", len(f.Payload), at)
			}
			at += uint64(len(f.Payload))
		case f.Type == frame.Result:
			if at != uint64(len(whole)) {
				return fmt.Errorf("ended at %d of %d, %d of them a gap", at, len(whole), gap)
			}
			return nil
		}
	}
}

func TestTenReadersOfWhomOneHasStopped(t *testing.T) {
	g := guesttest.Start(t, nil)
	want := pattern(5_000_000)
	must(t, os.WriteFile(filepath.Join(g.Root, "pattern"), want, 0o644))
	for _, overflow := range []string{"hold", "drop"} {
		c := g.Connect()
		first := c.Open("run", sh(map[string]any{"process_id": "p", "overflow": overflow, "stdin": true}, "read go; cat pattern"))
		first.AwaitEvent()
		readers := []*guesttest.Channel{first}
		for i := range 9 {
			if i%3 == 0 {
				c = g.Connect() // some share a link
			}
			readers = append(readers, c.Open("attach", map[string]any{"process_id": "p", "observe": true}))
			readers[i+1].AwaitEvent()
		}
		stopped := readers[5]
		stopped.Manual = true
		first.Send([]byte("\n"))
		errs := make(chan error)
		for _, ch := range readers {
			if ch != stopped {
				go func() { errs <- watch(ch, want) }()
			}
		}
		for range len(readers) - 1 {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
		// By now the process is forgotten, but not what became of it.
		wantFault(t, g.Connect().Do("attach", map[string]any{"process_id": "p"}), fault.ProcessNotFound)
		stopped.Manual = false
		stopped.Grant(1 << 20)
		if err := watch(stopped, want); err != nil {
			t.Fatal(err)
		}
	}
}

func TestObserving(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	observe := map[string]any{"process_id": "p", "observe": true}
	wantFault(t, c.Do("attach", observe), fault.ProcessNotFound)
	first := c.Open("run", sh(map[string]any{"process_id": "p"}, "head -c 3000000 /dev/zero; touch over"))
	first.Manual = true
	first.AwaitEvent()
	second := g.Connect().Open("attach", observe)
	if e := second.AwaitEvent(); e["event"] != "attached" {
		t.Fatal(e)
	}
	wantFault(t, c.Do("attach", map[string]any{"process_id": "p", "observe": true, "offset": 1 << 30}), fault.OffsetOutOfRange)
	// It reads all that there is, and yet the process is held back for its viewer.
	second.AwaitOutput(1 << 19)
	c.Do("ps", nil)
	if _, err := os.Stat(filepath.Join(g.Root, "over")); err == nil {
		t.Fatal("an observer has let the process go on")
	}
	// Nor does it keep the process alive; but it is told its end.
	first.Close()
	wantSignal(t, first.Finish(), syscall.SIGKILL, "killed")
	wantSignal(t, second.Finish(), syscall.SIGKILL, "killed")

	for _, output := range []string{"log", "capture"} {
		wantExit(t, c.Do("run", runOf(map[string]any{"process_id": output, "output": output, "linger_ms": 60_000}, "echo", "text")), 0, "exited")
		o := c.Do("attach", map[string]any{"process_id": output, "observe": true})
		wantExit(t, o, 0, "exited")
		if string(o.Stdout) != "text\n" {
			t.Fatalf("%q", o.Stdout)
		}
	}
}

func TestDropNeverHoldsTheProcessBack(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", runOf(map[string]any{"process_id": "p", "overflow": "drop", "linger_ms": -1}, "head", "-c", "9000000", "/dev/zero"))
	ch.AwaitEvent()
	ch.Close()
	wantFault(t, ch.Finish(), fault.Cancelled)
	eventually(t, "the process ends", func() bool {
		return c.Do("ps", nil).Result["processes"].([]any)[0].(map[string]any)["state"] == "exited"
	})
	o := c.Do("attach", map[string]any{"process_id": "p", "offset": 0})
	wantExit(t, o, 0, "exited")
	stdout := o.Result["stdout"].(map[string]any)
	if o.Gap == 0 || o.Gap+uint64(len(o.Stdout)) != 9_000_000 || stdout["total"] != 9e6 || stdout["omitted"].(float64) == 0 {
		t.Fatalf("gap %d, %d bytes, %v", o.Gap, len(o.Stdout), stdout)
	}
}

func TestHoldWithoutReaders(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", sh(map[string]any{"process_id": "p", "linger_ms": 60_000}, "head -c 3000000 /dev/zero; touch over"))
	ch.Manual = true
	ch.AwaitEvent()
	ch.Close()
	ch.Finish()
	c.Do("ps", nil)
	if _, err := os.Stat(filepath.Join(g.Root, "over")); err == nil {
		t.Fatal("the process was not held back")
	}
	o := c.Do("attach", map[string]any{"process_id": "p", "offset": 0})
	wantExit(t, o, 0, "exited")
	if len(o.Stdout) != 3_000_000 || o.Gap != 0 {
		t.Fatalf("%d bytes, gap %d", len(o.Stdout), o.Gap)
	}
}

func TestLinger(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", sh(map[string]any{"process_id": "p", "linger_ms": 300}, "echo $$; sleep 60"))
	ch.AwaitEvent()
	var pid int
	_, err := fmt.Sscan(string(ch.AwaitOutput(2).Stdout), &pid)
	must(t, err)
	c.Conn.Close()
	c = g.Connect()
	ch = c.Open("attach", map[string]any{"process_id": "p"})
	ch.AwaitEvent()
	ch.AwaitOutput(2)
	start := time.Now()
	ch.Close()
	wantFault(t, ch.Finish(), fault.Cancelled)
	eventually(t, "the process ends", func() bool { return !alive(pid) })
	if time.Since(start) < 250*time.Millisecond {
		t.Error("it did not linger")
	}
	eventually(t, "it is forgotten", func() bool {
		return len(c.Do("ps", nil).Result["processes"].([]any)) == 0
	})
}

func TestFinishedProcessIsRemembered(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	wantExit(t, c.Do("run", sh(map[string]any{"process_id": "p", "linger_ms": 60_000}, "printf abc; exit 4")), 4, "exited")
	o := c.Do("attach", map[string]any{"process_id": "p", "offset": 1})
	wantExit(t, o, 4, "exited")
	if string(o.Stdout) != "bc" {
		t.Fatalf("%q", o.Stdout)
	}
	wantFault(t, c.Do("attach", map[string]any{"process_id": "p", "offset": 4}), fault.OffsetOutOfRange)
	wantFault(t, c.Do("run", runOf(map[string]any{"process_id": "p"}, "true")), fault.ProcessExists)
	wantFault(t, c.Do("signal", map[string]any{"process_id": "p", "signal": 15}), fault.ProcessNotFound)

	wantExit(t, c.Do("run", sh(map[string]any{"process_id": "q", "output": "capture", "linger_ms": 60_000}, "printf abc; printf de >&2")), 0, "exited")
	o = c.Do("attach", map[string]any{"process_id": "q", "offset": 2})
	if string(o.Stdout) != "c" || string(o.Stderr) != "de" {
		t.Fatalf("%q %q", o.Stdout, o.Stderr)
	}

	wantExit(t, c.Do("run", runOf(map[string]any{"process_id": "r"}, "true")), 0, "exited")
	wantFault(t, c.Do("attach", map[string]any{"process_id": "r"}), fault.ProcessNotFound)
}

func TestOnlyTheLatestFinishedAreRemembered(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	for i := range 1030 {
		wantExit(t, c.Do("run", runOf(map[string]any{"process_id": fmt.Sprintf("n%d", i), "linger_ms": -1}, "/bin/true")), 0, "exited")
	}
	if n := len(c.Do("ps", nil).Result["processes"].([]any)); n != 1024 {
		t.Fatal(n)
	}
	wantFault(t, c.Do("attach", map[string]any{"process_id": "n0"}), fault.ProcessNotFound)
}

func TestLosingTheLinkDoesNotEndStdin(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", runOf(map[string]any{"process_id": "p", "stdin": true, "linger_ms": 60_000}, "sh"))
	ch.AwaitEvent()
	ch.Send([]byte("echo ready\n"))
	ch.AwaitOutput(6)
	ch.Send([]byte("touch wrong")) // the end of the line never comes
	c.Conn.Close()
	c = g.Connect()
	ch = c.Open("attach", map[string]any{"process_id": "p", "offset": 6})
	ch.AwaitEvent()
	c.Do("kill", map[string]any{"process_id": "p"})
	wantSignal(t, ch.Finish(), syscall.SIGKILL, "killed")
	if _, err := os.Stat(filepath.Join(g.Root, "wrong")); err == nil {
		t.Fatal("the half line was run")
	}
}

func TestPs(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	long := strings.Repeat("x", 100_000)
	for i := range 5 {
		c.Open("run", runOf(map[string]any{"process_id": fmt.Sprint("p", i)}, "sh", "-c", "sleep 60; true", long)).AwaitEvent()
	}
	for _, p := range c.Do("ps", nil).Result["processes"].([]any) {
		p := p.(map[string]any)
		if p["state"] != "running" || p["memory_bytes"].(float64) <= 0 || p["argv"].([]any)[0] != "sh" || p["result"] != nil {
			t.Errorf("%v %v", p["state"], p["memory_bytes"])
		}
	}
}

func TestPsTellsAllOfAProcess(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	ch := c.Open("run", sh(inTerminal(map[string]any{"linger_ms": -1}), "sleep 60 & sleep 60 & echo text; wait"))
	awaitFirst(t, ch, "text\r\n")
	wantExit(t, c.Do("run", sh(map[string]any{"process_id": "p", "linger_ms": 60_000}, "echo out; echo err >&2; exit 4")), 4, "exited")
	both := c.Do("ps", nil).Result["processes"].([]any)
	first, second := both[0].(map[string]any), both[1].(map[string]any)
	if first["terminal"] != true || first["detached"] != true || first["output_bytes"] != 6.0 || first["processes"] != 3.0 || first["result"] != nil {
		t.Error(first)
	}
	end := second["result"].(map[string]any)
	if second["terminal"] != false || second["detached"] != false || second["output_bytes"] != 8.0 || second["processes"] != 0.0 || end["exit_code"] != 4.0 {
		t.Error(second)
	}
}
