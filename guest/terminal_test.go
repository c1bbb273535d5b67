//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/guesttest"
	"agentic-isolation/guest/internal/link"
)

// inTerminal are the members of a run in a terminal, over which others are laid.
func inTerminal(members map[string]any) map[string]any {
	all := map[string]any{"process_id": "t", "terminal": map[string]any{"columns": 80, "rows": 24}}
	for k, v := range members {
		all[k] = v
	}
	return all
}

// awaitText reads output until it holds text, and returns all that has come.
func awaitText(t *testing.T, ch *guesttest.Channel, text string) string {
	t.Helper()
	var got []byte
	for !bytes.Contains(got, []byte(text)) {
		o := ch.AwaitOutput(1)
		got = append(append(got, o.Stdout...), o.Stderr...)
	}
	return string(got)
}

// awaitFirst is awaitText of a run that has just been opened.
func awaitFirst(t *testing.T, ch *guesttest.Channel, text string) {
	t.Helper()
	ch.AwaitEvent()
	awaitText(t, ch, text)
}

// writer opens an input and returns where it begins.
func writer(t *testing.T, c *guesttest.Client, members map[string]any) (ch *guesttest.Channel, offset float64) {
	t.Helper()
	ch = c.Open("input", members)
	e := ch.AwaitEvent()
	if e["event"] != "input" || e["ended"] != false {
		t.Fatalf("%v", e)
	}
	return ch, e["offset"].(float64)
}

func TestTerminal(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	ch := c.Open("run", sh(inTerminal(nil), `
		for n in 0 1 2; do [ -t $n ] || echo "no terminal: $n"; done
		stty size; stty -a | grep -ow -e -icanon -e -echo -e -isig -e -iutf8 -e -onlcr
		echo "$TERM" > /dev/tty; echo err >&2; read line; echo "got $line"; cat; exit 3`))
	ch.AwaitEvent()
	if got := awaitText(t, ch, "err\r\n"); got != "24 80\r\nxterm-256color\r\nerr\r\n" {
		t.Fatalf("%q", got)
	}
	in, offset := writer(t, c, map[string]any{"process_id": "t"})
	in.Send([]byte("hello\n"))
	if got := awaitText(t, ch, "got hello\r\n"); offset != 0 || got != "hello\r\ngot hello\r\n" {
		t.Fatalf("%v %q", offset, got)
	}
	in.Send([]byte("half"))
	awaitText(t, ch, "half")
	in.End() // twice: it ends what has begun as well
	o := ch.Finish()
	wantExit(t, o, 3, "exited")
	if string(o.Stdout) != "half" || len(o.Stderr) != 0 {
		t.Fatalf("%q %q", o.Stdout, o.Stderr)
	}
	if o := in.Finish(); o.Result["offset"] != 10.0 || o.Result["ended"] != true {
		t.Fatalf("%v %v", o.Result, o.Err)
	}
}

func TestEndOfATerminalsInput(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	// Each cat ends by one end of file; one too many would end the second one.
	for typed, want := range map[string]string{"": "", "line\n": "line", "line\r": "line", "half": "half", "half\x04": "half", "gone\x15": ""} {
		ch := c.Open("run", sh(inTerminal(nil), `stty -echo; echo ready; echo "<$(cat)>"; read line && echo "more: $line"`))
		awaitFirst(t, ch, "ready\r\n")
		in, _ := writer(t, c, map[string]any{"process_id": "t"})
		in.Send([]byte(typed))
		in.End()
		awaitText(t, ch, "<"+want+">\r\n")
		wantTaken(t, in, len(typed))
		key := c.Do("signal", map[string]any{"process_id": "t", "signal": 2, "foreground": true})
		if key.Err != nil {
			t.Fatal(key.Err)
		}
		wantSignal(t, ch.Finish(), syscall.SIGINT, "signaled")
	}
	// Without lines the character is one like others.
	ch := c.Open("run", sh(inTerminal(nil), `stty raw -echo; echo ready; head -c 5 | od -An -c`))
	awaitFirst(t, ch, "ready")
	in, _ := writer(t, c, map[string]any{"process_id": "t"})
	in.Send([]byte("half"))
	in.End()
	if o := ch.Finish(); !strings.Contains(string(o.Stdout), "h   a   l   f 004") {
		t.Fatalf("%q", o.Stdout)
	}
}

func TestTerminalThatNobodyReads(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	ch := c.Open("run", sh(inTerminal(nil), `stty raw -echo; echo ready; sleep 60`))
	awaitFirst(t, ch, "ready")
	var offset, credit uint64
	for i := range 3 {
		in, at := writer(t, c, map[string]any{"process_id": "t", "take": true})
		if uint64(at) != offset+credit {
			t.Fatalf("%v, not %d", at, offset+credit)
		}
		in.Send(bytes.Repeat([]byte("x"), link.Window))
		in.End() // which waits as well
		c.Ping("all has arrived")
		if i < 2 {
			in.Close()
		} else {
			c.Do("kill", map[string]any{"process_id": "t"})
		}
		offset = uint64(at)
		var end frame.Frame
		if credit, end = granted(t, in); credit >= link.Window {
			t.Fatalf("%d taken of a terminal that nobody reads, %v", credit, end.Type)
		}
	}
	wantSignal(t, ch.Finish(), syscall.SIGKILL, "killed")
}

func TestTerminalOfAnotherUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can change the user")
	}
	c := guesttest.Start(t, nil).Connect()
	o := c.Do("run", sh(inTerminal(map[string]any{"user": "54321:54322"}), `stat -Lc %u:%g /dev/fd/0; echo opened > /dev/tty; exec <"$(tty)" && echo again`))
	wantExit(t, o, 0, "exited")
	if got := string(o.Stdout); got != "54321:54322\r\nopened\r\nagain\r\n" {
		t.Fatalf("%q", got)
	}
}

func TestTerminalKeysSignals(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	ch := c.Open("run", sh(inTerminal(nil), `echo ready; exec sleep 60`))
	awaitFirst(t, ch, "ready")
	in, _ := writer(t, c, map[string]any{"process_id": "t"})
	in.Send([]byte{3})
	wantSignal(t, ch.Finish(), syscall.SIGINT, "signaled")
}

func TestResize(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	ch := c.Open("run", sh(inTerminal(nil), `trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done`))
	awaitFirst(t, ch, "ready")
	resize := func(id string, columns, rows int) *guesttest.Outcome {
		return c.Do("resize", map[string]any{"process_id": id, "columns": columns, "rows": rows})
	}
	wantFault(t, resize("t", 0, 24), fault.BadRequest)
	wantFault(t, resize("t", 80, 65_536), fault.BadRequest)
	wantFault(t, resize("missing", 80, 24), fault.ProcessNotFound)
	if o := resize("t", 132, 50); o.Err != nil {
		t.Fatal(o.Err)
	}
	o := ch.Finish()
	wantExit(t, o, 0, "exited")
	if !strings.Contains(string(o.Stdout), "50 132\r\n") {
		t.Fatalf("%q", o.Stdout)
	}
	plain := c.Open("run", runOf(map[string]any{"process_id": "plain"}, "sleep", "60"))
	plain.AwaitEvent()
	wantFault(t, resize("plain", 80, 24), fault.NoTerminal)
}

func TestSignalTheForeground(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	// With job control each job is a group of its own, and the shell is none of the foreground's.
	ch := c.Open("run", sh(inTerminal(nil), `set -m; sh -c 'echo ready; sleep 60'; echo "job $?"; sleep 60`))
	awaitFirst(t, ch, "ready")
	signal := func(members map[string]any) *guesttest.Outcome {
		members["process_id"] = "t"
		return c.Do("signal", members)
	}
	wantFault(t, signal(map[string]any{"signal": 15, "foreground": true, "tree": true}), fault.BadRequest)
	if o := signal(map[string]any{"signal": 15, "foreground": true}); o.Err != nil {
		t.Fatal(o.Err)
	}
	awaitText(t, ch, "job 143\r\n")
	c.Do("kill", map[string]any{"process_id": "t"})
	wantSignal(t, ch.Finish(), syscall.SIGKILL, "killed")

	plain := c.Open("run", runOf(map[string]any{"process_id": "t"}, "sleep", "60"))
	plain.AwaitEvent()
	if o := signal(map[string]any{"signal": 15, "foreground": true}); o.Err != nil {
		t.Fatal(o.Err)
	}
	wantSignal(t, plain.Finish(), syscall.SIGTERM, "signaled")
}

func TestTerminalThatIsClosedAndOpenedAgain(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	o := c.Do("run", sh(inTerminal(nil), `exec <&- >&- 2>&-; sleep 0.1; echo back > /dev/tty`))
	wantExit(t, o, 0, "exited")
	if string(o.Stdout) != "back\r\n" {
		t.Fatalf("%q", o.Stdout)
	}
}

func TestTerminalIsHungUpWithItsCommand(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	before := descriptors(t, g.PID())
	o := c.Do("run", sh(inTerminal(nil), `trap "" HUP; sleep 60 & trap - HUP; sleep 60 & echo done`))
	wantExit(t, o, 0, "exited")
	if string(o.Stdout) != "done\r\n" || o.Result["survivors"] != 1.0 {
		t.Fatalf("%q %v", o.Stdout, o.Result)
	}
	for range 5 {
		in := c.Open("run", runOf(inTerminal(nil), "cat"))
		in.AwaitEvent()
		w, _ := writer(t, c, map[string]any{"process_id": "t"})
		w.End()
		wantExit(t, in.Finish(), 0, "exited")
	}
	// The guest's end of the one terminal that is still held, and up to four warm shims.
	eventually(t, "no more descriptors are left", func() bool { return descriptors(t, g.PID()) <= before+5 })
}

func TestOutputOfATerminal(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	o := c.Do("run", sh(inTerminal(map[string]any{"lines": true}), `seq 1 200000`))
	wantExit(t, o, 0, "exited")
	if n := strings.Count(string(o.Stdout), "\r\n"); n != 200_000 || o.Result["stdout"].(map[string]any)["total"] != float64(len(o.Stdout)) {
		t.Fatal(n, o.Result)
	}
	o = c.Do("run", sh(inTerminal(map[string]any{"output": "capture"}), `echo out; echo err >&2`))
	if string(o.Stdout) != "out\r\nerr\r\n" || o.Result["stderr"].(map[string]any)["total"] != 0.0 {
		t.Fatalf("%q %v", o.Stdout, o.Result)
	}
}

func TestMuchInputOfATerminal(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	const size = 27 * 40_000
	for _, mode := range []string{"-echo", "raw -echo"} {
		ch := c.Open("run", sh(inTerminal(nil), fmt.Sprintf("stty %s; echo ready; head -c %d | wc -c", mode, size)))
		awaitFirst(t, ch, "ready")
		in, _ := writer(t, c, map[string]any{"process_id": "t"})
		in.SendAll([]byte(strings.Repeat("some words that fill lines\n", 40_000)), link.Window)
		o := ch.Finish()
		wantExit(t, o, 0, "exited")
		if got := strings.TrimSpace(string(o.Stdout)); got != fmt.Sprint(size) {
			t.Fatalf("%s: %q", mode, got)
		}
		in.Finish()
	}
}
