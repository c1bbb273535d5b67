//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/guesttest"
)

func sh(members map[string]any, script string) map[string]any {
	return runOf(members, "sh", "-c", script)
}

func wantExit(t *testing.T, o *guesttest.Outcome, code int, cause string) {
	t.Helper()
	if o.Err != nil {
		t.Fatal(o.Err)
	}
	if o.Result["exit_code"] != float64(code) || o.Result["signal"] != nil || o.Result["cause"] != cause {
		t.Fatalf("result %v, want exit code %d, %s", o.Result, code, cause)
	}
}

func wantSignal(t *testing.T, o *guesttest.Outcome, signal syscall.Signal, cause string) {
	t.Helper()
	if o.Err != nil {
		t.Fatal(o.Err)
	}
	if o.Result["signal"] != float64(signal) || o.Result["exit_code"] != nil || o.Result["cause"] != cause {
		t.Fatalf("result %v, want signal %d, %s", o.Result, signal, cause)
	}
}

func wantFault(t *testing.T, o *guesttest.Outcome, reason fault.Reason) {
	t.Helper()
	if o.Err == nil || o.Err.Reason != reason {
		t.Fatalf("%+v %v, want %s", o.Result, o.Err, reason)
	}
}

func TestExitCodesAndOutput(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	o := c.Do("run", sh(nil, "echo out; echo err >&2; exit 7"))
	wantExit(t, o, 7, "exited")
	if string(o.Stdout) != "out\n" || string(o.Stderr) != "err\n" {
		t.Fatalf("%q %q", o.Stdout, o.Stderr)
	}
	if o.Events[0]["event"] != "started" || o.Events[0]["pid"].(float64) <= 0 {
		t.Fatalf("%v", o.Events)
	}
	for _, member := range []string{"process_id", "started_unix_ns", "duration_us", "cpu_us", "peak_memory_bytes", "survivors"} {
		if _, ok := o.Result[member]; !ok {
			t.Errorf("no %s in %v", member, o.Result)
		}
	}
	if total := o.Result["stdout"].(map[string]any)["total"]; total != 4.0 {
		t.Errorf("stdout.total %v", total)
	}
	wantSignal(t, c.Do("run", sh(nil, "kill -SEGV $$")), syscall.SIGSEGV, "signaled")
	wantExit(t, c.Do("run", runOf(nil, "/bin/true")), 0, "exited")
}

func TestWhatCannotStart(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	must(t, os.WriteFile(filepath.Join(g.Root, "plain"), []byte("x"), 0o644))
	must(t, os.WriteFile(filepath.Join(g.Root, "garbage"), []byte("\x00\x01"), 0o755))
	must(t, os.WriteFile(filepath.Join(g.Root, "orphan"), []byte("#!/no/such/interpreter\n"), 0o755))
	must(t, os.Symlink("/etc", filepath.Join(g.Root, "out")))
	before := descriptors(t, g.PID())
	for _, test := range []struct {
		members map[string]any
		argv    []string
		reason  fault.Reason
	}{
		{nil, []string{"no-such-program"}, fault.ProgramNotFound},
		{nil, []string{"/no/such/program"}, fault.ProgramNotFound},
		{nil, []string{"./plain"}, fault.ProgramNotExecutable},
		{nil, []string{"./garbage"}, fault.ProgramNotExecutable},
		{nil, []string{"./orphan"}, fault.ProgramNotExecutable},
		{nil, []string{"/"}, fault.ProgramNotExecutable},
		{nil, []string{}, fault.BadRequest},
		{nil, []string{"true", "a\x00b"}, fault.BadRequest},
		{nil, []string{"true", strings.Repeat("x", 300_000)}, fault.BadRequest},
		{map[string]any{"env": map[string]any{"A=B": "c"}}, []string{"true"}, fault.BadRequest},
		{map[string]any{"env": map[string]any{"A": "c\x00"}}, []string{"true"}, fault.BadRequest},
		{map[string]any{"cwd": "missing"}, []string{"true"}, fault.WorkingDirNotFound},
		{map[string]any{"cwd": "plain"}, []string{"true"}, fault.WorkingDirNotFound},
		{map[string]any{"cwd": ".."}, []string{"true"}, fault.PathEscapes},
		{map[string]any{"cwd": "/etc"}, []string{"true"}, fault.PathEscapes},
		{map[string]any{"cwd": "out"}, []string{"true"}, fault.PathEscapes},
		{map[string]any{"process_id": "a/b"}, []string{"true"}, fault.BadRequest},
		{map[string]any{"timeout_ms": 0}, []string{"true"}, fault.BadRequest},
		{map[string]any{"output": "tape"}, []string{"true"}, fault.BadRequest},
		{map[string]any{"user": "root"}, []string{"true"}, fault.BadRequest},
		{map[string]any{"argv": 5}, nil, fault.BadRequest},
		{inTerminal(nil), []string{"no-such-program"}, fault.ProgramNotFound},
		{withInput(nil), []string{"no-such-program"}, fault.ProgramNotFound},
		{map[string]any{"stdin": true}, []string{"no-such-program"}, fault.ProgramNotFound},
	} {
		t.Run(fmt.Sprint(test.members, len(test.argv)), func(t *testing.T) {
			wantFault(t, c.Do("run", runOf(test.members, test.argv...)), test.reason)
		})
	}
	o := c.Do("run", runOf(map[string]any{"env": map[string]any{"PATH": "/a:/b"}}, "no-such-program"))
	if !strings.Contains(o.Err.Message, "no-such-program") || !strings.Contains(o.Err.Message, "/a:/b") {
		t.Errorf("the message does not help: %s", o.Err.Message)
	}
	wantFault(t, c.Do("fly", nil), fault.Unsupported)
	// Up to four shims stay warm, with a descriptor each.
	eventually(t, "no descriptor is left", func() bool { return descriptors(t, g.PID()) <= before+4 })
	if o := c.Do("ps", nil); len(o.Result["processes"].([]any)) != 0 {
		t.Errorf("left: %v", o.Result)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestProcessIDIsUnique(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	first := c.Open("run", runOf(map[string]any{"process_id": "same"}, "sleep", "60"))
	first.AwaitEvent()
	wantFault(t, c.Do("run", runOf(map[string]any{"process_id": "same"}, "true")), fault.ProcessExists)
	c.Do("kill", map[string]any{"process_id": "same"})
	first.Finish()
	wantExit(t, c.Do("run", runOf(map[string]any{"process_id": "same"}, "true")), 0, "exited")
	wantExit(t, c.Do("run", runOf(map[string]any{"process_id": "same"}, "true")), 0, "exited")
}

func TestEnvironmentAndWorkingDir(t *testing.T) {
	g := guesttest.Start(t, map[string]any{"working_dir": "/workspace/a/b"}, "BASE=1", "OVER=1")
	c := g.Connect()
	o := c.Do("run", runOf(map[string]any{"env": map[string]any{"OVER": "2", "NEW": "3"}}, "env"))
	env := strings.Split(strings.TrimSpace(string(o.Stdout)), "\n")
	want := map[string]bool{"BASE=1": true, "OVER=2": true, "NEW=3": true, "HOME=/": true,
		"PATH=/usr/local/bin:/usr/bin:/bin": true, "PWD=" + g.Root + "/a/b": true}
	for _, e := range env {
		if !want[e] {
			t.Errorf("%q has leaked", e)
		}
		delete(want, e)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
	must(t, os.Mkdir(filepath.Join(g.Root, "c"), 0o755))
	for cwd, real := range map[string]string{"": "a/b", "..": "a", "/workspace/c": "c", g.Root + "/c": "c", "../../c/.": "c"} {
		o := c.Do("run", runOf(map[string]any{"cwd": cwd}, "pwd", "-P"))
		if got := strings.TrimSpace(string(o.Stdout)); got != filepath.Join(g.Root, real) {
			t.Errorf("cwd %q: %q, %v", cwd, got, o.Err)
		}
	}
}

func TestCommandsInheritNothing(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	o := c.Do("run", runOf(nil, "ls", "-l", "/proc/self/fd"))
	// 0, 1, 2, and the directory that ls reads.
	if n := strings.Count(string(o.Stdout), "->"); n != 4 {
		t.Errorf("descriptors:\n%s", o.Stdout)
	}
	o = c.Do("run", runOf(nil, "grep", "-E", "^(Sig(Blk|Ign)|NoNewPrivs)", "/proc/self/status"))
	for _, line := range strings.Split(strings.TrimSpace(string(o.Stdout)), "\n") {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		if name == "NoNewPrivs" {
			if (value == "1") != noNewPrivileges {
				t.Errorf("%s", line)
			}
		} else if strings.Trim(value, "0") != "" {
			t.Errorf("%s", line)
		}
	}
}

func TestUser(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	own := fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
	wantExit(t, c.Do("run", runOf(map[string]any{"user": own}, "true")), 0, "exited")
	o := c.Do("run", runOf(map[string]any{"user": "54321:54322"}, "sh", "-c", "id -u; id -g; id -G"))
	if os.Getuid() != 0 {
		wantFault(t, o, fault.UserUnavailable)
		return
	}
	wantExit(t, o, 0, "exited")
	if string(o.Stdout) != "54321\n54322\n54322\n" {
		t.Fatalf("%q", o.Stdout)
	}
	o = c.Do("run", runOf(map[string]any{"user": "54321"}, "id", "-g"))
	if string(o.Stdout) != "54321\n" {
		t.Fatalf("%q", o.Stdout)
	}
	// A guest that runs as root kills what runs as others.
	ch := c.Open("run", runOf(map[string]any{"user": "54321", "timeout_ms": 100}, "sleep", "60"))
	wantSignal(t, ch.Finish(), syscall.SIGKILL, "timeout")
}

func TestStdin(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	ch := c.Open("run", runOf(map[string]any{"stdin": true}, "cat"))
	ch.AwaitEvent()
	for i := range 20 {
		line := fmt.Sprintf("line %d\n", i)
		ch.Send([]byte(line))
		if o := ch.AwaitOutput(len(line)); string(o.Stdout) != line {
			t.Fatalf("%q", o.Stdout)
		}
	}
	ch.End()
	wantExit(t, ch.Finish(), 0, "exited")

	o := c.Do("run", runOf(nil, "cat"))
	wantExit(t, o, 0, "exited")
}

func TestStdinLargerThanTheWindow(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	ch := c.Open("run", runOf(map[string]any{"stdin": true}, "wc", "-c"))
	const size = 5 << 20
	block := bytes.Repeat([]byte("x"), frame.MaxData)
	credit := 256 << 10
	for sent := 0; sent < size; {
		for credit <= 0 {
			f, _ := ch.Next()
			if f.Type == frame.Credit {
				credit += int(f.Payload[0])<<24 | int(f.Payload[1])<<16 | int(f.Payload[2])<<8 | int(f.Payload[3])
			}
		}
		ch.Send(block)
		sent += len(block)
		credit -= len(block)
	}
	ch.End()
	o := ch.Finish()
	wantExit(t, o, 0, "exited")
	if strings.TrimSpace(string(o.Stdout)) != fmt.Sprint(size) {
		t.Fatalf("%s", o.Stdout)
	}
}

func TestCommandThatNeverReadsItsStdin(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	ch := c.Open("run", runOf(map[string]any{"stdin": true, "process_id": "deaf"}, "sleep", "60"))
	ch.AwaitEvent()
	ch.Send(bytes.Repeat([]byte("x"), 256<<10))
	c.Ping("still here")
	wantExit(t, c.Do("run", runOf(nil, "true")), 0, "exited")
	c.Do("kill", map[string]any{"process_id": "deaf"})
	wantSignal(t, ch.Finish(), syscall.SIGKILL, "killed")
}

func TestStdinAfterTheEnd(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	ch := c.Open("run", sh(map[string]any{"stdin": true}, "exec <&-; sleep 0.1; echo bye"))
	for range 4 {
		ch.Send(bytes.Repeat([]byte("x"), frame.MaxData))
	}
	o := ch.Finish()
	wantExit(t, o, 0, "exited")
	ch.Send([]byte("late"))
	ch.End()
	c.Ping("ok")
}

func TestCapture(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	o := c.Do("run", sh(map[string]any{"output": "capture", "capture_bytes": 10}, "printf 0123456789abcdef; printf short >&2"))
	wantExit(t, o, 0, "exited")
	if string(o.Stdout) != "01234bcdef" || string(o.Stderr) != "short" {
		t.Fatalf("%q %q", o.Stdout, o.Stderr)
	}
	stdout := o.Result["stdout"].(map[string]any)
	if stdout["total"] != 16.0 || stdout["omitted"] != 6.0 || stdout["head"] != 5.0 {
		t.Fatalf("%v", stdout)
	}
	if o.Frames[0].Type != frame.Stdout || o.Frames[len(o.Frames)-1].Type != frame.Stderr {
		t.Fatalf("%v", o.Frames)
	}
}

func TestCaptureOfMuchOutputKeepsMemoryFlat(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	c.Do("run", sh(map[string]any{"output": "capture"}, "head -c 20000000 /dev/zero"))
	before := peakResident(t, g.PID())
	o := c.Do("run", sh(map[string]any{"output": "capture"}, "head -c 200000000 /dev/zero"))
	wantExit(t, o, 0, "exited")
	if len(o.Stdout) != 1<<20 {
		t.Fatal(len(o.Stdout))
	}
	if grown := peakResident(t, g.PID()) - before; grown > 16<<20 {
		t.Errorf("memory has grown by %d bytes", grown)
	}
}

func TestLinesAreNeverCut(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	script := `i=0; while [ $i -lt 3000 ]; do printf 'line %d ' $i; echo "with more words"; echo e$i >&2; i=$((i+1)); done
	head -c 200000 /dev/zero | tr '\0' x; echo; printf last`
	o := c.Do("run", sh(map[string]any{"lines": true}, script))
	wantExit(t, o, 0, "exited")
	end := len(o.Frames) - 1
	for o.Frames[end].Type != frame.Stdout { // the other source's may come after it
		end--
	}
	for i, f := range o.Frames {
		if f.Payload[len(f.Payload)-1] == '\n' || len(f.Payload) == frame.MaxData || i == end && bytes.HasSuffix(f.Payload, []byte("last")) {
			continue
		}
		t.Fatalf("frame %d of %d ends inside a line: %q", i, len(o.Frames), f.Payload[max(0, len(f.Payload)-40):])
	}
	if n := bytes.Count(o.Stdout, []byte("\n")); n != 3001 {
		t.Fatal(n)
	}
	if n := bytes.Count(o.Stderr, []byte("\n")); n != 3000 {
		t.Fatal(n)
	}
}

func TestSlowReaderHoldsOnlyItsOwnChannel(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	slow := c.Open("run", runOf(nil, "head", "-c", "8000000", "/dev/zero"))
	slow.Manual = true
	got := 0
	for got < 256<<10 {
		f, _ := slow.Next()
		got += len(f.Payload)
		if f.Type == frame.Event {
			got = 0
		}
	}
	o := c.Do("run", runOf(nil, "head", "-c", "3000000", "/dev/zero"))
	wantExit(t, o, 0, "exited")
	if len(o.Stdout) != 3_000_000 {
		t.Fatal(len(o.Stdout))
	}
	slow.Manual = false
	slow.Grant(got)
	o = slow.Finish()
	wantExit(t, o, 0, "exited")
	if got+len(o.Stdout) != 8_000_000 {
		t.Fatalf("%d bytes", got+len(o.Stdout))
	}
}

func TestChildThatKeepsTheOutputOpen(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	start := time.Now()
	o := c.Do("run", sh(nil, "echo done; sleep 30 &"))
	wantExit(t, o, 0, "exited")
	if string(o.Stdout) != "done\n" || o.Result["survivors"] != 1.0 {
		t.Fatalf("%q %v", o.Stdout, o.Result)
	}
	if took := time.Since(start); took < 200*time.Millisecond || took > 5*time.Second {
		t.Errorf("took %v", took)
	}
}

func TestChildOfACommandThatEndedAtOnce(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	// Several: one of them is over before the shim would hand it to its supervisor.
	for i := range 5 {
		id := fmt.Sprintf("brief%d", i)
		o := c.Do("run", sh(map[string]any{"process_id": id, "linger_ms": 60_000}, "sleep 30 >/dev/null 2>&1 &"))
		wantExit(t, o, 0, "exited")
		start := time.Now()
		if o := c.Do("kill", map[string]any{"process_id": id}); o.Err != nil || o.Result["survivors"] != 0.0 {
			t.Fatalf("%v %v", o.Err, o.Result)
		}
		if took := time.Since(start); took > 3*time.Second {
			t.Fatalf("nobody has reaped it: %v", took)
		}
	}
}

func TestStragglerNeverGetsSigpipe(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	mark := filepath.Join(g.Root, "mark")
	must(t, syscall.Mkfifo(mark, 0o600))
	o := c.Do("run", sh(nil, `(trap '' HUP; read go < mark; head -c 1000000 /dev/zero; echo "$?" > mark) & echo x`))
	wantExit(t, o, 0, "exited")
	must(t, os.WriteFile(mark, []byte("go\n"), 0))
	b, err := os.ReadFile(mark)
	if err != nil || string(b) != "0\n" {
		t.Fatalf("%q %v", b, err)
	}
}

func TestOutputOfTheCommandItselfIsDeliveredWhenTheLogWasHeld(t *testing.T) {
	c := guesttest.Start(t, nil).Connect()
	const size = 1<<20 + 256<<10
	ch := c.Open("run", sh(nil, fmt.Sprintf("sleep 30 & head -c %d /dev/zero; printf END", size)))
	ch.Manual = true
	got := 0
	for got < 256<<10 {
		f, _ := ch.Next()
		if f.Type == frame.Stdout {
			got += len(f.Payload)
		}
	}
	ch.Manual = false
	ch.Grant(got)
	o := ch.Finish()
	wantExit(t, o, 0, "exited")
	if got+len(o.Stdout) != size+3 || !bytes.HasSuffix(o.Stdout, []byte("END")) {
		t.Fatalf("%d bytes", got+len(o.Stdout))
	}
}

func TestManyAtOnce(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	var all sync.WaitGroup
	for i := range 64 {
		all.Go(func() {
			o := c.Do("run", sh(nil, fmt.Sprintf("sleep 0.1; echo %d", i)))
			if o.Err != nil || string(o.Stdout) != fmt.Sprintf("%d\n", i) || o.Result["survivors"] != 0.0 {
				t.Errorf("%d: %q %v %v", i, o.Stdout, o.Result, o.Err)
			}
		})
	}
	all.Wait()
	awaitOnly(t, g, 4)
}
