package server

import (
	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/link"
	"agentic-isolation/guest/internal/process"
)

const highestSignal = 64

type signalRequest struct {
	ProcessID string `json:"process_id"`
	Signal    int    `json:"signal"`
	Tree      bool   `json:"tree"`
	// Foreground: not the command, but what its terminal is for now.
	Foreground bool `json:"foreground"`
}

func (g *Guest) signal(_ *link.Channel, r *signalRequest) (none, error) {
	if r.Signal < 1 || r.Signal > highestSignal {
		return none{}, fault.New(fault.BadRequest, "signal: want 1 to %d, not %d", highestSignal, r.Signal)
	}
	if r.Tree && r.Foreground {
		return none{}, fault.New(fault.BadRequest, "foreground: not with tree")
	}
	p, err := g.table.Get(r.ProcessID)
	if err != nil {
		return none{}, err
	}
	if r.Foreground {
		return none{}, p.SignalForeground(r.Signal)
	}
	return none{}, p.Signal(r.Signal, r.Tree)
}

type waitRequest struct {
	ProcessID string `json:"process_id"`
}

func (g *Guest) wait(ch *link.Channel, r *waitRequest) (*process.Result, error) {
	p, err := g.table.Find(r.ProcessID)
	if err != nil {
		return nil, err
	}
	select {
	case <-p.Finished():
		return p.Result(), nil
	case <-ch.Closed():
		return nil, link.ErrClosed
	}
}

type killRequest struct {
	ProcessID string `json:"process_id"`
	Forbid    bool   `json:"forbid"`
}

type killResult struct {
	Survivors int `json:"survivors"`
}

func (g *Guest) kill(ch *link.Channel, r *killRequest) (killResult, error) {
	p, err := g.find(r)
	if p == nil {
		return killResult{}, err
	}
	p.Kill(process.CauseKilled, p.Grace)
	for _, done := range []<-chan struct{}{p.TreeEnd(), p.Finished()} {
		select {
		case <-done:
		case <-ch.Closed():
			return killResult{}, link.ErrClosed
		}
	}
	return killResult{Survivors: p.Survivors()}, nil
}

// find returns the process to kill: nil and no error where it is only to be forbidden.
func (g *Guest) find(r *killRequest) (*process.Process, error) {
	if !r.Forbid {
		return g.table.Get(r.ProcessID)
	}
	if err := checkID(r.ProcessID); err != nil {
		return nil, err
	}
	return g.table.Forbid(r.ProcessID), nil
}

func (g *Guest) shutdown(*link.Channel, *none) (none, error) {
	g.end(reasonShutdown)
	<-g.quiet
	return none{}, nil
}
