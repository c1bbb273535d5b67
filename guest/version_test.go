//go:build linux

package main

import (
	"syscall"
	"testing"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/guesttest"
)

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

func TestLinkOfVersion1(t *testing.T) {
	g := guesttest.Start(t, nil)
	first, second := g.ConnectBy(1), g.Connect()
	for range 2 {
		wantExit(t, first.Do("run", runOf(asked("p", "a", nil), "true")), 0, "exited")
	}
	wantFault(t, first.Do("kill", map[string]any{"process_id": "q", "forbid": true}), fault.ProcessNotFound)
	if o := first.Do("lease", map[string]any{"ttl_ms": 60_000}); o.Err != nil || len(o.Result) != 0 {
		t.Error(o.Result, o.Err)
	}
	info := first.Do("info", nil).Result
	for _, member := range []string{"lease_left_ms"} {
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
