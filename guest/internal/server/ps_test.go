package server

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/process"
)

// listed is a process whose description is as long as it can be but for its arguments.
func listed(i int, state string, argv ...string) processInfo {
	id := fmt.Sprintf("%064d", i)
	details := &processDetails{OutputBytes: math.MaxUint64, Processes: 1 << 30}
	if state == "exited" {
		code, head := 255, 1<<24
		all := process.Summary{Total: math.MaxUint64, Omitted: math.MaxUint64, Head: &head}
		details.Result = &process.Result{
			ProcessID: id, ExitCode: &code, Cause: process.CauseOutOfMemory, StartedUnixNS: math.MaxInt64, DurationUS: math.MaxInt64,
			CPUMicros: math.MaxInt64, PeakMemory: math.MaxInt64, Survivors: 1 << 30, Stdout: all, Stderr: all,
		}
	}
	return processInfo{
		ProcessID: id, Argv: argv, PID: 1 << 22, State: state, StartedUnixNS: math.MaxInt64, CPUMicros: math.MaxInt64,
		Memory: math.MaxInt64, processDetails: details,
	}
}

func TestListingFitsAFrame(t *testing.T) {
	hostile := strings.Repeat("\x01<\xff", 50_000)
	for _, argv := range [][]string{{"sh"}, {hostile}, {"sh", hostile, "more"}, strings.Split(strings.Repeat(",", 100_000), ",")} {
		for _, n := range []int{0, 1, 1024} {
			var infos []processInfo
			for i := range n {
				infos = append(infos, listed(2*i, "exited", argv...), listed(2*i+1, "running", argv...))
			}
			result := psResult{fit(infos)}
			if _, err := frame.AppendJSON(nil, frame.Result, 1, result); err != nil {
				t.Fatal(err)
			}
			running := 0
			for _, info := range result.Processes {
				if info.State == "running" {
					running++
				}
			}
			if last := len(result.Processes) - 1; running != n || n > 0 && result.Processes[last-1].State != "exited" {
				t.Fatalf("%d of %d running ones are left, and not the youngest that have ended", running, n)
			}
		}
	}
}

func TestArgumentListsAreCut(t *testing.T) {
	infos := []processInfo{listed(0, "running", "sh", "-c", strings.Repeat("x", 2*maxArgv), "more"), listed(1, "running", "true")}
	short := fit(infos)
	if argv := short[0].Argv; len(argv) != 3 || !strings.HasSuffix(argv[2], "x…") || len(argv[2]) < maxArgv/8 {
		t.Errorf("%d arguments, the last of %d bytes", len(argv), len(argv[len(argv)-1]))
	}
	if argv := short[1].Argv; len(argv) != 1 || argv[0] != "true" {
		t.Error(argv)
	}
}
