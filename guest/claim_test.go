//go:build linux

package main

import (
	"testing"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/guesttest"
)

func claimOf(more map[string]any) map[string]any {
	members := map[string]any{"lease_ms": 60_000, "values": map[string]any{}, "record": "theirs"}
	for k, v := range more {
		members[k] = v
	}
	return members
}

func TestClaimSetsAllAtOnce(t *testing.T) {
	g := guesttest.Start(t, map[string]any{"lease_ms": 1000})
	c := g.Connect()
	o := c.Do("claim", claimOf(map[string]any{"values": map[string]any{"KEY": "secret"}, "lifetime_ms": 50_000}))
	if left, ok := o.Result["lease_left_ms"].(float64); o.Err != nil || !ok || left != 50_000 {
		t.Fatal(o.Result, o.Err)
	}
	if got := g.Connect().Do("info", nil).Result["record"]; got != "theirs" {
		t.Error(got)
	}
	printed := c.Do("run", sh(map[string]any{"process_id": "p"}, `printf %s "$KEY"`))
	if wantExit(t, printed, 0, "exited"); string(printed.Stdout) != "secret" {
		t.Errorf("%q", printed.Stdout)
	}
	wantFault(t, c.Do("claim", claimOf(nil)), fault.BadRequest)
	if got := c.Do("info", nil).Result["record"]; got != "theirs" {
		t.Error(got)
	}
}

func TestRefusedClaimChangesNothing(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	for _, members := range []map[string]any{
		{"lease_ms": 0}, {"idle_ms": -1}, {"lifetime_ms": -1}, {"values": nil}, {"values": map[string]any{"A=B": "c"}}, {"record": nil},
	} {
		wantFault(t, c.Do("claim", claimOf(members)), fault.BadRequest)
	}
	wantFault(t, g.ConnectBy(3).Do("claim", claimOf(nil)), fault.Unsupported)
	if record, given := c.Do("info", nil).Result["record"]; given {
		t.Fatal(record)
	}
	if o := c.Do("claim", claimOf(nil)); o.Err != nil {
		t.Fatal(o.Err)
	}
}

func TestClaimedGuestIsIdleFromTheClaimOn(t *testing.T) {
	t.Parallel()
	g := guesttest.Start(t, nil)
	c := g.Connect()
	if o := c.Do("claim", claimOf(map[string]any{"idle_ms": 300})); o.Err != nil {
		t.Fatal(o.Err)
	}
	wantExit(t, c.Do("run", runOf(nil, "sleep", "1")), 0, "exited")
	c.AwaitEnd()
	if e := c.Announced(); e["reason"] != "idle" {
		t.Error(e)
	}
	g.AwaitExit()
}
