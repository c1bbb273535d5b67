// Package process keeps what the guest knows of each process: its output, its end, and who is interested.
package process

import (
	"os"
	"sync"
	"syscall"
	"time"

	"agentic-isolation/guest/internal/cgroup"
	"agentic-isolation/guest/internal/pool"
	"agentic-isolation/guest/internal/proctree"
	"agentic-isolation/guest/internal/redact"
	"agentic-isolation/guest/internal/shim"
)

// Spec is what to run, checked.
type Spec struct {
	ID string
	// Request is a digest of what was asked, or empty.
	Request   string
	Argv, Env []string
	// Dir is closed by Start.
	Dir *os.File
	// Stdin and Input are both a pipe, of which the run's own channel is the writer, or any that asks to be.
	Stdin, Input bool
	// Terminal is the size of the pseudo-terminal to run in, in place of pipes; with Input.
	Terminal *Size
	User     *shim.User
	Timeout  time.Duration // 0: none
	Grace    time.Duration
	Linger   time.Duration // negative: for ever
	Capture  bool
	Limit    int // of each captured source, in bytes
	Lines    bool
	// Redact is what to replace in the output; nil: nothing.
	Redact *redact.Values
	// Overflow is what a full log does.
	Overflow Overflow
}

// footprint is about what a process takes besides its output and arguments.
const footprint = 2 << 10

// Process is a command that has been started, until nobody can ask for it any more.
type Process struct {
	Spec
	log      *Log
	capture  *capture
	pumps    []*pump
	input    *input
	stdin    *Writer
	terminal *terminal
	tree     *pool.Tree
	onEnd    func()

	// finished is closed when the result is known, and treeEnd when a kill has done what it can.
	finished chan struct{}
	treeEnd  chan struct{}

	mu     sync.Mutex
	timer  *time.Timer
	exit   *shim.Event
	usage  shim.Usage
	limits limits
	forced Cause
	// lost: the shim was killed, and nobody has said by whom.
	lost        bool
	treeSignals map[int]bool
	treeOver    bool
	treeEmpty   bool
	pumping     int
	result      *Result
}

// start runs spec. The process's onEnd is called once, when its result is known and its log is sealed.
func start(spec Spec, shims *pool.Pool, group *cgroup.Group, onEnd func()) (*Process, error) {
	p := &Process{
		Spec: spec, log: NewLog(spec.Overflow), limits: limits{group: group, before: group.Hits()},
		onEnd: onEnd, finished: make(chan struct{}), treeEnd: make(chan struct{}), treeSignals: map[int]bool{},
	}
	if spec.Capture {
		p.capture = newCapture(spec.Limit)
	}
	ends, err := p.plumb()
	defer ends.close()
	if err == nil {
		var tree *pool.Tree
		tree, err = shims.Start(&pool.Spec{
			Argv: spec.Argv, Env: spec.Env, User: spec.User, Stdio: ends, Dir: spec.Dir,
			Terminal: spec.Terminal != nil,
		}, p)
		if err == nil {
			p.Env, p.Redact = nil, nil // a finished process is kept for a while, and need not keep these
			p.begin(tree)
			return p, nil
		}
	}
	p.unplumb()
	return nil, err
}

func (p *Process) begin(tree *pool.Tree) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tree = tree
	if p.Timeout > 0 && p.exit == nil {
		p.timer = time.AfterFunc(p.Timeout, p.expire)
	}
	for _, pump := range p.pumps {
		go pump.run(p.pumped)
	}
}

// take is the pumps' sink.
func (p *Process) take(source Source, b []byte, straggler bool) time.Duration {
	if p.capture != nil {
		p.capture.write(source, b)
		return 0
	}
	return p.log.Append(source, b, straggler)
}

// pumped tells that one source has ended.
func (p *Process) pumped() {
	p.mu.Lock()
	p.pumping--
	p.settle()
}

// Observe implements pool.Observer.
func (p *Process) Observe(e pool.Event) {
	p.mu.Lock()
	p.limits.shared = e.Shared
	switch e.Event.Event {
	case shim.EventExited:
		p.exit, p.usage = &e.Event, e.Usage
		p.endInput()
		if p.timer != nil {
			p.timer.Stop()
		}
	case shim.EventEmpty:
		p.usage = e.Usage
	}
	if e.Empty {
		p.treeEmpty = true
	}
	if e.Event.Event == shim.EventStuck && p.exit == nil {
		p.presumeKilled()
	}
	if e.Empty || e.Event.Event == shim.EventStuck {
		p.treeEnded()
	}
	if p.exit != nil && (p.treeOver || p.forced == "") {
		p.endOutput()
	}
	p.settle()
}

// Lost implements pool.Observer.
func (p *Process) Lost(survivors int) {
	p.mu.Lock()
	if p.exit == nil {
		if p.forced == "" {
			p.forced, p.lost = CauseKilled, true
		}
		p.presumeKilled()
	}
	p.treeEmpty = survivors == 0
	p.treeEnded()
	p.endOutput()
	p.settle()
}

// presumeKilled takes SIGKILL for the end of a command of which nobody tells it: its shim was killed, or cannot reap it, as
// the kernel does not let go of it or somebody traces it. Its result must not wait for that.
func (p *Process) presumeKilled() {
	p.exit = &shim.Event{Event: shim.EventExited, Status: uint32(syscall.SIGKILL)}
	if p.tree != nil {
		p.exit.DurationUS = time.Since(time.Unix(0, p.tree.UnixNS)).Microseconds()
	}
	p.endInput()
	if p.timer != nil {
		p.timer.Stop()
	}
}

func (p *Process) treeEnded() {
	if !p.treeOver {
		p.treeOver = true
		close(p.treeEnd)
	}
}

// endOutput makes the pumps finish. What the command has left in its pipes must then fit into a full log.
func (p *Process) endOutput() {
	if p.treeOver {
		p.log.Release(releaseAll)
	} else {
		p.log.Release(releaseCommand)
	}
	for _, pump := range p.pumps {
		pump.end(p.treeOver)
	}
}

// settle unlocks mu, after it has concluded the process if nothing is missing any more.
func (p *Process) settle() {
	ready := p.result == nil && p.exit != nil && p.pumping == 0 && (p.forced == "" || p.treeOver)
	if !ready {
		p.mu.Unlock()
		return
	}
	p.conclude()
	p.mu.Unlock()
	close(p.finished)
	p.log.Seal()
	// The end may be told while whoever starts the process still waits to hear of its start.
	go p.onEnd()
}

func (p *Process) conclude() {
	r := &Result{
		ProcessID: p.ID, StartedUnixNS: p.tree.UnixNS,
		CPUMicros: p.usage.CPUMicros, PeakMemory: p.usage.PeakMemory,
	}
	r.outcome(p.exit, p.forced, p.treeSignals)
	if p.forced == "" || p.lost {
		r.Cause = p.limits.cause(r, p.usage.Killed)
	}
	if !p.treeEmpty {
		r.Survivors = p.tree.Survivors()
	}
	if p.capture != nil {
		r.Stdout, r.Stderr = p.capture.summary(Stdout), p.capture.summary(Stderr)
		p.capture.pour(p.log)
	} else {
		r.Stdout.Omitted, r.Stderr.Omitted = p.log.Lost(Stdout), p.log.Lost(Stderr)
		for _, pump := range p.pumps {
			total := &r.Stdout.Total
			if pump.source == Stderr {
				total = &r.Stderr.Total
			}
			*total = pump.total.Load()
		}
	}
	p.result = r
}

// expire ends the process at its timeout, which is not for what the command may have left in the background.
func (p *Process) expire() {
	p.mu.Lock()
	over := p.exit != nil
	p.mu.Unlock()
	if !over {
		p.Kill(CauseTimeout, p.Grace)
	}
}

// Kill ends the whole tree. The result, and TreeEnd, follow.
func (p *Process) Kill(cause Cause, grace time.Duration) {
	p.mu.Lock()
	if p.exit == nil && p.forced == "" {
		p.forced = cause
	}
	p.mu.Unlock()
	p.tree.Kill(grace)
}

// Signal signals the command, or its whole tree.
func (p *Process) Signal(signal int, whole bool) error {
	p.mu.Lock()
	if whole {
		p.treeSignals[signal] = true
	}
	p.mu.Unlock()
	if whole && signal == int(syscall.SIGKILL) {
		p.Kill(CauseKilled, 0)
		return nil
	}
	return p.tree.Signal(signal, whole)
}

// size is the memory that a finished process takes, in bytes.
func (p *Process) size() int {
	size := footprint + p.log.Size()
	for _, arg := range p.Argv {
		size += len(arg)
	}
	return size
}

// Log is the process's output.
func (p *Process) Log() *Log { return p.log }

// Finished is closed when the result is known.
func (p *Process) Finished() <-chan struct{} { return p.finished }

// HasFinished reports whether Finished is closed.
func (p *Process) HasFinished() bool {
	select {
	case <-p.finished:
		return true
	default:
		return false
	}
}

// TreeEnd is closed when the tree is empty, or when a kill has been given up.
func (p *Process) TreeEnd() <-chan struct{} { return p.treeEnd }

// Survivors counts the processes of the tree that still run.
func (p *Process) Survivors() int { return p.tree.Survivors() }

// Result is how the process ended; nil until Finished.
func (p *Process) Result() *Result {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.result
}

// PID is the command's process id.
func (p *Process) PID() int { return p.tree.PID }

// StartedUnixNS is when the process began.
func (p *Process) StartedUnixNS() int64 { return p.tree.UnixNS }

// Members returns the processes of the tree among all.
func (p *Process) Members(all []proctree.Proc) []proctree.Proc { return p.tree.Select(all) }
