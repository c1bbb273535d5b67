package server

import (
	"encoding/json"
	"errors"
	"os"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/files"
	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/link"
)

type watchRequest struct {
	Path      string `json:"path"`
	Recursive bool   `json:"recursive"`
}

func (g *Guest) watch(ch *link.Channel, r *watchRequest) (none, error) {
	watch, err := g.files.Watch(r.Path, r.Recursive)
	if err != nil {
		return none{}, err
	}
	defer watch.Close()
	over := make(chan struct{})
	defer close(over)
	ch.Go(func() {
		select {
		case <-over:
		case <-ch.Closed():
		case <-g.quiet:
		}
		watch.Close()
	})
	if err := ch.Event(fileEvent{Event: "watching", Entry: watch.Entry}); err != nil {
		return none{}, err
	}
	err = watch.Run(&changes{outgoing{ch: ch}})
	if errors.Is(err, os.ErrClosed) {
		if ch.IsClosed() {
			return none{}, link.ErrClosed
		}
		return none{}, fault.New(fault.ShuttingDown, "the guest is ending")
	}
	return none{}, err
}

// changes sends what a watch tells, in frames of whole lines.
type changes struct{ out outgoing }

// Tell implements files.Listener.
func (c *changes) Tell(change files.Change) error {
	line, err := json.Marshal(change)
	if err == nil && len(line) >= frame.MaxData {
		// Nobody could use the path either.
		line, err = json.Marshal(files.Change{Kind: files.Overflow})
	}
	if err != nil {
		return err
	}
	line = append(line, '\n')
	if len(c.out.queued)+len(line) > frame.MaxData {
		if err := c.out.flush(); err != nil {
			return err
		}
	}
	_, err = c.out.Write(line)
	return err
}

// Flush implements files.Listener. A watch that waits holds no buffer.
func (c *changes) Flush() error {
	err := c.out.flush()
	c.out.queued = nil
	return err
}
