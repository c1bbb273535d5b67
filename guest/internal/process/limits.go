package process

import (
	"syscall"

	"agentic-isolation/guest/internal/cgroup"
)

// shellKilled is how a shell, and many a runner of programs, tells that its child was killed by SIGKILL.
const shellKilled = 128 + int(syscall.SIGKILL)

// limits tells whether a command has met the workspace's limits.
//
// The kernel counts for the workspace, not for each command. A hit while nothing else ran was this command's. While
// others ran, want of memory is taken for this command's only where something of its tree was killed, and a refused
// process, which leaves no such trace, for nobody's.
type limits struct {
	group  *cgroup.Group
	before cgroup.Hits
	// shared: other commands, or what they had left behind, have run meanwhile.
	shared bool
}

// cause returns why the command ended, which is as r says unless a limit was met. Killed counts the processes of its
// tree that SIGKILL has ended.
func (l *limits) cause(r *Result, killed int) Cause {
	now := l.group.Hits()
	exit := 0
	if r.ExitCode != nil {
		exit = *r.ExitCode
	}
	failed := r.Signal != nil || exit != 0 // who did with fewer processes has not ended because of it
	switch {
	case now.OutOfMemory > l.before.OutOfMemory && (!l.shared || killed > 0 || exit == shellKilled):
		return CauseOutOfMemory
	case now.Pids > l.before.Pids && !l.shared && failed:
		return CausePidsLimit
	}
	return r.Cause
}
