package process

import (
	"syscall"

	"agentic-isolation/guest/internal/shim"
)

// Cause tells why a process ended.
type Cause string

// The causes.
const (
	CauseExited   Cause = "exited"
	CauseSignaled Cause = "signaled"
	CauseTimeout  Cause = "timeout"
	CauseKilled   Cause = "killed"
	// CauseOutOfMemory and CausePidsLimit: the command, or a process of its tree, has met a limit of the workspace.
	CauseOutOfMemory Cause = "out_of_memory"
	CausePidsLimit   Cause = "pids_limit"
)

// Summary counts the bytes of one source.
type Summary struct {
	Total   uint64 `json:"total"`
	Omitted uint64 `json:"omitted"`
	// Head is, of a captured source, where in the kept bytes the omitted ones were.
	Head *int `json:"head,omitempty"`
}

// Result is how a process ended.
type Result struct {
	ProcessID     string  `json:"process_id"`
	ExitCode      *int    `json:"exit_code,omitempty"`
	Signal        *int    `json:"signal,omitempty"`
	Cause         Cause   `json:"cause"`
	StartedUnixNS int64   `json:"started_unix_ns"`
	DurationUS    int64   `json:"duration_us"`
	CPUMicros     int64   `json:"cpu_us"`
	PeakMemory    int64   `json:"peak_memory_bytes"`
	Survivors     int     `json:"survivors"`
	Stdout        Summary `json:"stdout"`
	Stderr        Summary `json:"stderr"`
}

// outcome fills in how the command itself ended.
func (r *Result) outcome(exit *shim.Event, forced Cause, treeSignals map[int]bool) {
	status := syscall.WaitStatus(exit.Status)
	r.DurationUS = exit.DurationUS
	if status.Signaled() {
		n := int(status.Signal())
		r.Signal = &n
		r.Cause = CauseSignaled
		if treeSignals[n] {
			r.Cause = CauseKilled
		}
	} else {
		n := status.ExitStatus()
		r.ExitCode = &n
		r.Cause = CauseExited
	}
	if forced != "" {
		r.Cause = forced
	}
}
