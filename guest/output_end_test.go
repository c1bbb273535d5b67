//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"

	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/guesttest"
	"agentic-isolation/guest/internal/link"
)

// unread runs a command whose output nobody takes beyond the first window.
func unread(c *guesttest.Client, id, script string) *guesttest.Channel {
	ch := c.Open("run", sh(map[string]any{"process_id": id, "lines": true}, script))
	ch.Manual = true
	return ch
}

// A full log lets pass what a tree has left in its pipes. What another command writes there is none of it, and would
// fill the guest's memory.
func TestWriterFromOutsideOfTheTree(t *testing.T) {
	const most = 4 << 20
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := unread(c, "victim", "echo $$ > tmp; mv tmp pid; while [ ! -e go ]; do sleep 0.01; done")
	ch.AwaitEvent()
	flood := c.Open("run", sh(nil, "while [ ! -e pid ]; do sleep 0.01; done; exec 3> /proc/$(cat pid)/fd/1; echo; exec cat /dev/zero >&3"))
	flood.AwaitEvent()
	flood.AwaitOutput(1)
	for sent := 0; sent < link.Window; {
		f, ok := ch.Next()
		if !ok || f.Type != frame.Stdout {
			t.Fatalf("%v %q", f.Type, f.Payload)
		}
		sent += len(f.Payload)
	}
	must(t, os.WriteFile(filepath.Join(g.Root, "go"), nil, 0o644))
	o := c.Do("wait", map[string]any{"process_id": "victim"})
	wantExit(t, o, 0, "exited")
	if total := o.Result["stdout"].(map[string]any)["total"].(float64); total > most {
		t.Errorf("%.0f bytes were kept of a log that holds 1 MiB", total)
	}
	flood.Close()
}

// A command's last line has no end. It is the command's, whatever it has left in the background.
func TestUnreadOutputThatEndsWithinALine(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := unread(c, "half", `sleep 60 >/dev/null 2>&1 & head -c 1200000 /dev/zero | tr '\0' '\n'; printf end`)
	ch.AwaitEvent()
	wantExit(t, c.Do("wait", map[string]any{"process_id": "half"}), 0, "exited")
	ch.Manual = false
	ch.Grant(2 << 20)
	if o := ch.Finish(); len(o.Stdout) != 1_200_003 || string(o.Stdout[1_200_000:]) != "end" {
		t.Errorf("%d bytes", len(o.Stdout))
	}
}
