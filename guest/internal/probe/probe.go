// Package probe tries, from inside a workspace and as its user, to get through what is to hold it. Each probe is one
// attempt made for real; the caller knows which of them the place has promised to refuse.
//
// Probes leave nothing behind, and are harmless where nothing refuses them, on a developer's machine as root too: what
// they may open they do not write to, what they may make they remove, and calls with an effect on the whole machine get
// arguments that are refused for being wrong, right after the permission was looked at.
package probe

import (
	"encoding/json"
	"fmt"
	"os"
)

// Outcome is how an attempt ended.
type Outcome string

// The outcomes.
const (
	Blocked       Outcome = "blocked"
	NotBlocked    Outcome = "not_blocked"
	NotApplicable Outcome = "not_applicable"
)

// Report is an attempt's outcome, with what was tried and what the kernel said.
type Report struct {
	Name    string  `json:"name"`
	Outcome Outcome `json:"outcome"`
	Detail  string  `json:"detail"`
}

const usage = `usage: agentic-guest probe list              the attempts, with what each tries
       agentic-guest probe NAME              one attempt
       agentic-guest probe connect ADDRESS   one attempt: HOST:PORT answers over TCP
       agentic-guest probe BOMB [-limit N] [-hold SECONDS] [-for SECONDS]
                                             fork-bomb, memory-bomb or disk-fill: to be judged from outside; takes N
                                             processes or MiB, tells when it was stopped, and holds them for a while
       agentic-guest probe link PATH TARGET  make a symlink
       agentic-guest probe swap PATH TARGET SECONDS   make PATH a file and a symlink to TARGET in turn
       agentic-guest probe find-environ TEXT one attempt: TEXT in the environment of any process
       agentic-guest probe hold SECONDS      do nothing
`

// Main runs one probe and prints its report. The exit code is 0 whatever the outcome.
func Main(args []string) int {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	return run(args[0], args[1:])
}

func show(name string, r Report) int {
	r.Name = name
	if err := json.NewEncoder(os.Stdout).Encode(r); err != nil {
		return broken(err)
	}
	return 0
}

func broken(err error) int {
	fmt.Fprintf(os.Stderr, "agentic-guest: probe: %v\n", err)
	return 1
}
