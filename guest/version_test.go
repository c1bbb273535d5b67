//go:build linux

package main

import (
	"strings"
	"syscall"
	"testing"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/guesttest"
)

func TestRemember(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	if record, given := c.Do("info", nil).Result["record"]; given {
		t.Fatal(record)
	}
	wantFault(t, c.Do("remember", nil), fault.BadRequest)
	for _, record := range []string{`{"a": "\u0000<ä>"}`, strings.Repeat("x", 512<<10), ""} {
		if o := c.Do("remember", map[string]any{"record": record}); o.Err != nil || len(o.Result) != 0 {
			t.Fatal(o.Result, o.Err)
		}
		// It is the guest's, not the link's.
		if got := g.Connect().Do("info", nil).Result["record"]; got != record {
			t.Fatalf("%.100q, want %.100q", got, record)
		}
	}
	wantFault(t, c.Do("remember", map[string]any{"record": strings.Repeat("x", 512<<10+1)}), fault.BadRequest)
	// It would not fit into the frame that tells it.
	wantFault(t, c.Do("remember", map[string]any{"record": strings.Repeat("\"", 510<<10)}), fault.BadRequest)
	if got := c.Do("info", nil).Result["record"]; got != "" {
		t.Fatalf("%.100q", got)
	}
}

func TestLeaseTellsWhatIsLeft(t *testing.T) {
	c := guesttest.Start(t, map[string]any{"lifetime_ms": 60_000}).Connect()
	left := func(o *guesttest.Outcome) float64 {
		t.Helper()
		if o.Err != nil {
			t.Fatal(o.Err)
		}
		return o.Result["lease_left_ms"].(float64)
	}
	if n := left(c.Do("lease", map[string]any{"ttl_ms": 30_000})); n != 30_000 {
		t.Error(n)
	}
	if n := left(c.Do("info", nil)); n < 25_000 || n > 30_000 {
		t.Error(n)
	}
	if n := left(c.Do("lease", map[string]any{"ttl_ms": 90_000})); n < 55_000 || n >= 60_000 {
		t.Error(n)
	}
}

func TestLinkOfVersion2(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.ConnectBy(2)
	for _, op := range []string{"input", "resize", "wait", "secrets", "copy", "chmod", "pack", "unpack", "watch"} {
		wantFault(t, c.Do(op, map[string]any{"process_id": "p"}), fault.Unsupported)
	}
	keep(t, g.Connect(), map[string]any{"KEY": "secret"})
	// Whatever is in members that it lacks is not looked at.
	members := map[string]any{"process_id": "p", "input": true, "terminal": "large", "redact": true, "linger_ms": 60_000}
	ch := c.Open("run", sh(members, `[ -t 0 ] && echo terminal; cat; echo "$KEY"; read line; sleep 60 & wait $!`))
	ch.AwaitEvent()
	if o := ch.AwaitOutput(7); string(o.Stdout) != "secret\n" {
		t.Fatalf("%q", o.Stdout)
	}
	wantFault(t, g.Connect().Do("input", map[string]any{"process_id": "p"}), fault.BadRequest)
	other := c.Open("attach", map[string]any{"process_id": "p", "observe": "yes"})
	other.AwaitEvent()
	listed := c.Do("ps", nil).Result["processes"].([]any)[0].(map[string]any)
	for _, member := range []string{"terminal", "detached", "output_bytes", "processes", "result"} {
		if listed[member] != nil {
			t.Errorf("ps has %s", member)
		}
	}
	// It is a viewer: with it the process goes on.
	ch.Close()
	wantFault(t, ch.Finish(), fault.Cancelled)
	if o := c.Do("signal", map[string]any{"process_id": "p", "signal": 15, "foreground": 1}); o.Err != nil {
		t.Fatal(o.Err)
	}
	wantSignal(t, other.Finish(), syscall.SIGTERM, "signaled")
}

func TestLinkOfVersion1(t *testing.T) {
	g := guesttest.Start(t, nil)
	first, second := g.ConnectBy(1), g.Connect()
	second.Do("remember", map[string]any{"record": "x"})
	for range 2 {
		wantExit(t, first.Do("run", runOf(asked("p", "a", nil), "true")), 0, "exited")
	}
	wantFault(t, first.Do("kill", map[string]any{"process_id": "q", "forbid": true}), fault.ProcessNotFound)
	wantFault(t, first.Do("remember", map[string]any{"record": "y"}), fault.Unsupported)
	if o := first.Do("lease", map[string]any{"ttl_ms": 60_000}); o.Err != nil || len(o.Result) != 0 {
		t.Error(o.Result, o.Err)
	}
	info := first.Do("info", nil).Result
	for _, member := range []string{"record", "lease_left_ms"} {
		if info[member] != nil {
			t.Errorf("info has %s", member)
		}
	}
	ch := first.Open("run", runOf(nil, "sleep", "60"))
	ch.AwaitEvent()
	if o := second.Do("shutdown", nil); o.Err != nil {
		t.Fatal(o.Err)
	}
	wantSignal(t, ch.Finish(), syscall.SIGKILL, "killed")
	first.AwaitEnd()
	second.AwaitEnd()
	if first.Announced() != nil || second.Announced() == nil {
		t.Error(first.Announced(), second.Announced())
	}
}
