//go:build linux

package main

import (
	"fmt"
	"strings"
	"testing"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/guesttest"
)

func keep(t *testing.T, c *guesttest.Client, values map[string]any) {
	t.Helper()
	if o := c.Do("secrets", map[string]any{"values": values}); o.Err != nil || len(o.Result) != 0 {
		t.Fatal(o.Result, o.Err)
	}
}

func TestSecretsAreVariablesOfCommands(t *testing.T) {
	g := guesttest.Start(t, nil, "A=base", "B=base", "C=base")
	c := g.Connect()
	wantFault(t, c.Do("secrets", nil), fault.BadRequest)
	wantFault(t, c.Do("secrets", map[string]any{"values": map[string]any{"A=B": "c"}}), fault.BadRequest)
	wantFault(t, c.Do("secrets", map[string]any{"values": map[string]any{"A": "a\x00"}}), fault.BadRequest)
	wantFault(t, c.Do("secrets", map[string]any{"values": map[string]any{"A": strings.Repeat("x", 128<<10)}}), fault.BadRequest)
	keep(t, c, map[string]any{"D": strings.Repeat("x", 128<<10-1)})
	keep(t, c, map[string]any{"B": "secret", "C": "secret", "TERM": "dumb"})
	command := runOf(inTerminal(map[string]any{"env": map[string]any{"C": "env"}}), "sh", "-c", `echo "$A $B $C $TERM $D"`)
	// They are the guest's, not the link's.
	if o := g.Connect().Do("run", command); string(o.Stdout) != "base secret env dumb \r\n" {
		t.Fatalf("%q %v", o.Stdout, o.Err)
	}
	keep(t, c, map[string]any{})
	if o := c.Do("run", command); string(o.Stdout) != "base base env xterm-256color \r\n" {
		t.Fatalf("%q %v", o.Stdout, o.Err)
	}
	for _, op := range []string{"ps", "info"} {
		if o := c.Do(op, nil); strings.Contains(fmt.Sprint(o.Result), "secret") {
			t.Error(o.Result)
		}
	}
}

func TestSecretsAreRedacted(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	keep(t, c, map[string]any{"KEY": "secret", "LONG": "secret-and-more", "LINES": "first\nsecond"})
	script := `printf 'a secr'; printf 'et-and-mor'; printf 'e b secret\n%s\n' "$LINES"; printf 'secret' >&2; printf 'secret-and'`
	want := "a *** b ***\n***\n***-and"
	for _, members := range []map[string]any{{}, {"lines": true}, {"output": "capture"}, {"overflow": "drop"}} {
		members["redact"] = true
		o := c.Do("run", sh(members, script))
		wantExit(t, o, 0, "exited")
		if string(o.Stdout) != want || string(o.Stderr) != "***" || o.Result["stdout"].(map[string]any)["total"] != float64(len(want)) {
			t.Errorf("%v: %q %q %v", members, o.Stdout, o.Stderr, o.Result)
		}
	}
	o := c.Do("run", sh(inTerminal(map[string]any{"redact": true}), `echo "$LINES"; echo "$KEY"`))
	if string(o.Stdout) != "***\r\n***\r\n" {
		t.Errorf("%q", o.Stdout)
	}
	if o := c.Do("run", sh(nil, `printf %s "$KEY"`)); string(o.Stdout) != "secret" {
		t.Errorf("%q", o.Stdout)
	}
	// What cannot be the beginning of a value is not held back, and what can goes out with the end.
	ch := c.Open("run", sh(map[string]any{"redact": true, "stdin": true}, `printf 'name: sec'; read line; printf 'ond sec'`))
	ch.AwaitEvent()
	if o := ch.AwaitOutput(6); string(o.Stdout) != "name: " {
		t.Errorf("%q", o.Stdout)
	}
	ch.Send([]byte("\n"))
	if o := ch.Finish(); string(o.Stdout) != "second sec" {
		t.Errorf("%q", o.Stdout)
	}
}

func TestMuchRedactedOutput(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	keep(t, c, map[string]any{"KEY": "seven", "OTHER": "v"})
	o := c.Do("run", sh(map[string]any{"redact": true, "lines": true}, "seq -f 'seven %.0f seven v' 1 100000"))
	wantExit(t, o, 0, "exited")
	lines := strings.Split(strings.TrimSuffix(string(o.Stdout), "\n"), "\n")
	for i, line := range lines {
		if want := fmt.Sprintf("*** %d *** ***", i+1); line != want {
			t.Fatalf("%q, want %q", line, want)
		}
	}
	if len(lines) != 100_000 {
		t.Fatal(len(lines))
	}
}
