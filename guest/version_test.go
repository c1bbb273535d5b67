//go:build linux

package main

import (
	"syscall"
	"testing"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/guesttest"
)

func TestLinkOfVersion1(t *testing.T) {
	g := guesttest.Start(t, nil)
	first, second := g.ConnectBy(1), g.Connect()
	for range 2 {
		wantExit(t, first.Do("run", runOf(asked("p", "a", nil), "true")), 0, "exited")
	}
	wantFault(t, first.Do("kill", map[string]any{"process_id": "q", "forbid": true}), fault.ProcessNotFound)
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
