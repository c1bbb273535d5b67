//go:build linux

package main

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/guesttest"
)

func asked(id, request string, more map[string]any) map[string]any {
	members := map[string]any{"process_id": id, "request": request}
	for k, v := range more {
		members[k] = v
	}
	return members
}

func attach(c *guesttest.Client, id string) *guesttest.Outcome {
	return c.Do("attach", map[string]any{"process_id": id})
}

func awaitExited(t *testing.T, c *guesttest.Client, id string) {
	t.Helper()
	eventually(t, id+" ends", func() bool {
		for _, p := range c.Do("ps", nil).Result["processes"].([]any) {
			if p := p.(map[string]any); p["process_id"] == id && p["state"] == "exited" {
				return true
			}
		}
		return false
	})
}

func TestRequestIsCarriedOutOnce(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	ch := c.Open("run", sh(asked("p", "a", nil), "echo once >>runs; wc -l <runs; until [ -e go ]; do sleep 0.02; done; exit 3"))
	ch.AwaitEvent()
	again := func() {
		t.Helper()
		wantFault(t, c.Do("run", sh(asked("p", "a", nil), "echo once >>runs")), fault.ProcessExists)
		wantFault(t, c.Do("run", sh(map[string]any{"process_id": "p"}, "echo once >>runs")), fault.ProcessExists)
		wantFault(t, c.Do("run", sh(asked("p", "b", nil), "echo once >>runs")), fault.RequestConflict)
		// The workspace may have changed meanwhile: that says nothing about the first run.
		wantFault(t, c.Do("run", sh(asked("p", "a", map[string]any{"cwd": "missing"}), "true")), fault.ProcessExists)
	}
	again()
	wantExit(t, c.Do("run", sh(map[string]any{"process_id": "go"}, "touch go")), 0, "exited")
	wantExit(t, ch.Finish(), 3, "exited")
	again()
	for range 2 {
		o := attach(c, "p")
		wantExit(t, o, 3, "exited")
		if strings.TrimSpace(string(o.Stdout)) != "1" {
			t.Fatalf("%q", o.Stdout)
		}
	}

	c.Open("run", runOf(map[string]any{"process_id": "plain"}, "sleep", "60")).AwaitEvent()
	wantFault(t, c.Do("run", runOf(asked("plain", "a", nil), "true")), fault.RequestConflict)
}

func TestInputOfARequestIsTakenWholeOrNotAtAll(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	members := asked("p", "a", map[string]any{"stdin": true})
	cut := c.Open("run", sh(members, "echo once >>runs; cat"))
	cut.Send([]byte("half"))
	cut.Close()
	cut.Finish()
	wantFault(t, attach(c, "p"), fault.ProcessNotFound)

	whole := strings.Repeat("0123456789abcdef", 1<<13) // more than a pipe holds
	again := c.Open("run", sh(members, "echo once >>runs; wc -l <runs; cat"))
	again.Send([]byte(whole[:60_000]))
	again.Send([]byte(whole[60_000:120_000]))
	again.Send([]byte(whole[120_000:]))
	again.End()
	o := again.Finish()
	wantExit(t, o, 0, "exited")
	if got := strings.TrimSpace(string(o.Stdout)); got != "1\n"+whole {
		t.Fatalf("%d bytes: %.20q…", len(got), got)
	}
}

func TestRequestIsAtMost128Characters(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	wantExit(t, c.Do("run", runOf(asked("p", strings.Repeat("ä", 128), nil), "true")), 0, "exited")
	wantFault(t, c.Do("run", runOf(asked("q", strings.Repeat("a", 129), nil), "true")), fault.BadRequest)
	wantFault(t, c.Do("run", runOf(map[string]any{"request": 5}, "true")), fault.BadRequest)
}

// openWaiting opens a run that waits for its turn, under an id of its own, and returns both.
func openWaiting(t *testing.T, c *guesttest.Client) (id string, ch *guesttest.Channel) {
	t.Helper()
	for i := range 100 {
		id = fmt.Sprintf("waiting%d", i)
		ch = c.Open("run", runOf(asked(id, "a", nil), "sleep", "60"))
		c.Ping("the run has arrived")
		probe := c.Do("run", runOf(asked(id, "another", map[string]any{"cwd": "missing"}), "true"))
		if probe.Err.Reason == fault.RequestConflict {
			return id, ch
		}
		ch.Close() // the probe has come first
	}
	t.Fatal("no run came before its probe")
	return "", nil
}

func TestRequestThatIsJustBeingStarted(t *testing.T) {
	c := guesttest.Start(t, map[string]any{"max_commands": 1}).Connect()
	// It has to wait for its turn.
	first := c.Open("run", sh(map[string]any{"stdin": true}, "read x"))
	first.AwaitEvent()
	id, ch := openWaiting(t, c)
	wantFault(t, c.Do("run", runOf(asked(id, "a", nil), "sleep", "60")), fault.ProcessExists)
	kill := c.Open("kill", map[string]any{"process_id": id, "forbid": true})
	c.Ping("the kill has arrived")
	first.End()
	wantExit(t, first.Finish(), 1, "exited")
	wantSignal(t, ch.Finish(), syscall.SIGKILL, "killed")
	if o := kill.Finish(); o.Result["survivors"] != 0.0 {
		t.Fatal(o.Result, o.Err)
	}
	wantSignal(t, attach(c, id), syscall.SIGKILL, "killed")
}

func TestRequestThatCannotStartLeavesNoTrace(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	wantFault(t, c.Do("run", runOf(asked("p", "a", nil), "./later")), fault.ProgramNotFound)
	wantFault(t, c.Do("run", runOf(asked("p", "a", map[string]any{"cwd": "later"}), "true")), fault.WorkingDirNotFound)
	wantFault(t, attach(c, "p"), fault.ProcessNotFound)
	wantExit(t, c.Do("run", runOf(asked("p", "b", nil), "true")), 0, "exited")
}

func TestResultIsKeptOfWhatNobodyWaitedFor(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("run", sh(asked("lingering", "a", map[string]any{"linger_ms": 200}), "echo here; sleep 60"))
	ch.AwaitEvent()
	ch.AwaitOutput(5)
	ch.Close()
	wantFault(t, ch.Finish(), fault.Cancelled)
	lost := g.Connect()
	ch = lost.Open("run", sh(asked("lost", "a", nil), "echo here; sleep 60"))
	ch.AwaitEvent()
	ch.AwaitOutput(5)
	lost.Conn.Close()
	for _, id := range []string{"lingering", "lost"} {
		awaitExited(t, c, id)
		o := attach(c, id)
		wantSignal(t, o, syscall.SIGKILL, "killed")
		if string(o.Stdout) != "here\n" {
			t.Fatalf("%q", o.Stdout)
		}
		wantFault(t, c.Do("run", runOf(asked(id, "a", nil), "true")), fault.ProcessExists)
	}
}

func TestWindowOfARequest(t *testing.T) {
	t.Parallel()
	const window = 600 * time.Millisecond
	g := guesttest.Start(t, map[string]any{"request_window_ms": window.Milliseconds()})
	c := g.Connect()
	start := time.Now()
	wantExit(t, c.Do("run", runOf(asked("p", "a", map[string]any{"linger_ms": -1}), "echo", "x")), 0, "exited")
	ended := time.Now()
	// Who looks at a result does not prolong its window.
	eventually(t, "the result is forgotten", func() bool { return attach(c, "p").Err != nil })
	if took := time.Since(start); took < window || time.Since(ended) > 5*window {
		t.Errorf("forgotten after %v", took)
	}
	wantFault(t, attach(c, "p"), fault.ProcessNotFound)
	wantFault(t, c.Do("run", runOf(asked("p", "a", nil), "true")), fault.ResultForgotten)
	wantFault(t, c.Do("run", runOf(map[string]any{"process_id": "p"}, "true")), fault.ResultForgotten)
	wantFault(t, c.Do("kill", map[string]any{"process_id": "p"}), fault.ProcessNotFound)
	eventually(t, "so is that it was run", func() bool {
		return c.Do("run", runOf(map[string]any{"process_id": "p"}, "true")).Err == nil
	})
	if took := time.Since(start); took < 2*window {
		t.Errorf("run again after %v", took)
	}
}

func TestResultStaysWhileItIsRead(t *testing.T) {
	const size = 1_000_000
	const window = 600 * time.Millisecond
	c := guesttest.Start(t, map[string]any{"request_window_ms": window.Milliseconds()}).Connect()
	run := runOf(asked("p", "a", map[string]any{"output": "capture"}), "head", "-c", fmt.Sprint(size), "/dev/zero")
	ch := c.Open("run", run)
	ch.Manual = true
	ch.AwaitEvent()
	awaitExited(t, c, "p")
	time.Sleep(window + 200*time.Millisecond)
	if o := attach(c, "p"); len(o.Stdout) != size {
		t.Fatal(len(o.Stdout), o.Err)
	}
	ch.Manual = false
	ch.Grant(size)
	wantExit(t, ch.Finish(), 0, "exited")
	wantFault(t, attach(c, "p"), fault.ProcessNotFound)
	wantFault(t, c.Do("run", run), fault.ResultForgotten)
}

func TestUndeliveredResultsOutliveDeliveredOnes(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	lost := g.Connect()
	lost.Open("run", runOf(asked("undelivered", "a", nil), "sleep", "60")).AwaitEvent()
	lost.Conn.Close()
	awaitExited(t, c, "undelivered")
	for i := range 1024 + 5 {
		wantExit(t, c.Do("run", runOf(asked(fmt.Sprint("n", i), "a", nil), "/bin/true")), 0, "exited")
	}
	eventually(t, "1024 are remembered", func() bool { return len(c.Do("ps", nil).Result["processes"].([]any)) == 1024 })
	wantSignal(t, attach(c, "undelivered"), syscall.SIGKILL, "killed")
	wantFault(t, c.Do("run", runOf(asked("n5", "a", nil), "/bin/true")), fault.ResultForgotten)
	wantFault(t, c.Do("run", runOf(asked("n6", "a", nil), "/bin/true")), fault.ProcessExists)
}

func TestForbid(t *testing.T) {
	const window = 600 * time.Millisecond
	c := guesttest.Start(t, map[string]any{"request_window_ms": window.Milliseconds()}).Connect()
	forbid := func(id string) *guesttest.Outcome {
		return c.Do("kill", map[string]any{"process_id": id, "forbid": true})
	}
	for range 2 {
		if o := forbid("p"); o.Err != nil || o.Result["survivors"] != 0.0 {
			t.Fatal(o.Result, o.Err)
		}
	}
	start := time.Now()
	wantFault(t, c.Do("run", runOf(asked("p", "a", nil), "true")), fault.ResultForgotten)
	wantFault(t, attach(c, "p"), fault.ProcessNotFound)
	wantFault(t, c.Do("kill", map[string]any{"process_id": "p"}), fault.ProcessNotFound)
	wantFault(t, forbid("no id"), fault.BadRequest)
	eventually(t, "it is allowed again", func() bool {
		return c.Do("run", runOf(asked("p", "a", nil), "true")).Err == nil
	})
	if took := time.Since(start); took < window-100*time.Millisecond {
		t.Errorf("after %v", took)
	}

	ch := c.Open("run", runOf(asked("q", "a", nil), "sleep", "60"))
	ch.AwaitEvent()
	if o := forbid("q"); o.Err != nil || o.Result["survivors"] != 0.0 {
		t.Fatal(o.Result, o.Err)
	}
	wantSignal(t, ch.Finish(), syscall.SIGKILL, "killed")
	wantFault(t, c.Do("run", runOf(asked("q", "a", nil), "true")), fault.ProcessExists)
}
