// Package shim is the process that stands between the guest and one running command at a time: it starts the
// command, reaps and kills its tree, and learns from the kernel when that tree is empty.
//
// Guest and shim exchange frames over a socket pair. A request is an OPEN frame, answered on its channel by RESULT or
// ERROR; what befalls a command is told by EVENT frames on the channel of its start request. A shim's first frame is a
// HELLO: it has all the threads that it will need.
package shim

// ControlFD is the descriptor at which a shim finds its end of the socket pair.
const ControlFD = 3

// The operations of a request.
const (
	OpStart  = "start"
	OpSignal = "signal"
	OpKill   = "kill"
)

// Request is what the guest asks of a shim. A start request travels with four descriptors: the command's standard
// input, output and error, and its working directory.
type Request struct {
	Op   string   `json:"op"`
	Argv []string `json:"argv,omitempty"`
	Env  []string `json:"env,omitempty"`
	User *User    `json:"user,omitempty"`
	// Terminal: the standard input is a terminal, which becomes the command's controlling one.
	Terminal bool  `json:"terminal,omitempty"`
	Signal   int   `json:"signal,omitempty"`
	Tree     bool  `json:"tree,omitempty"`
	GraceMS  int64 `json:"grace_ms,omitempty"`
}

// User is whom a command runs as, where that differs from the shim's own user.
type User struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
}

// Started answers a start request.
type Started struct {
	PID    int   `json:"pid"`
	UnixNS int64 `json:"unix_ns"`
}

// The events of a command.
const (
	// EventExited: the command itself has ended. Empty says whether its tree has too.
	EventExited = "exited"
	// EventEmpty: the last process of the tree has been reaped. Never follows an EventExited that said so.
	EventEmpty = "empty"
	// EventStuck: a kill has not emptied the tree in time.
	EventStuck = "stuck"
)

// Event tells what befell a command.
type Event struct {
	Event      string `json:"event"`
	Status     uint32 `json:"status"`
	DurationUS int64  `json:"duration_us"`
	Empty      bool   `json:"empty"`
	Usage
}

// Usage sums the processes that have been reaped so far.
type Usage struct {
	CPUMicros  int64 `json:"cpu_us"`
	PeakMemory int64 `json:"peak_memory_bytes"`
	// Killed counts those that SIGKILL has ended.
	Killed int `json:"killed"`
}
