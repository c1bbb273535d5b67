package server

import (
	"io"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/link"
	"agentic-isolation/guest/internal/process"
)

// maxInput bounds the standard input of a request, which is taken in whole before the command starts.
const maxInput = 4 << 20

type inputRequest struct {
	ProcessID string `json:"process_id"`
	Take      bool   `json:"take"`
}

// inputProgress is the EVENT and the RESULT of an input.
type inputProgress struct {
	Event  string `json:"event,omitempty"`
	Offset uint64 `json:"offset"`
	Ended  bool   `json:"ended"`
}

func progress(w *process.Writer) inputProgress {
	taken, ended := w.Progress()
	return inputProgress{Offset: taken, Ended: ended}
}

func openInput(g *Guest, ch *link.Channel, raw []byte) (func(), error) {
	request, err := decode[inputRequest](raw)
	if err != nil {
		return nil, err
	}
	ch.AcceptData()
	return func() { g.input(ch, request) }, nil
}

func (g *Guest) input(ch *link.Channel, r *inputRequest) {
	p, err := g.table.Find(r.ProcessID)
	if err != nil {
		ch.Fail(err)
		return
	}
	w, err := p.OpenInput(r.Take, ch.Closed())
	if err != nil {
		ch.Fail(err)
		return
	}
	defer w.Close()
	begun := progress(w)
	begun.Event = "input"
	_ = ch.Event(begun) // a failure to send is a closed channel, which pass finds
	if err := pass(ch, w); err != nil && err != process.ErrInputOver {
		ch.Fail(err)
		return
	}
	ch.Result(progress(w))
}

// pass writes what arrives on a channel, until END, which ends the input, or until the channel or the writer is over.
func pass(ch *link.Channel, w *process.Writer) error {
	ch.Go(func() {
		select {
		case <-ch.Closed():
			w.Close()
		case <-w.Over():
		}
	})
	var spare []byte
	for {
		data, err := ch.ReceiveUntil(w.Over(), spare)
		switch err {
		case nil:
			err = w.Write(data, ch.Grant)
		case link.ErrStopped:
			return w.Err()
		case io.EOF:
			return w.End()
		}
		if err != nil {
			return err
		}
		spare = data
	}
}

// bring makes what a run has brought the command's standard input: the channel's data, or all that was collected.
func bring(ch *link.Channel, p *process.Process, collected []byte, whole bool) {
	w := p.Feeder()
	if !whole {
		ch.Go(func() {
			defer w.Close()
			_ = pass(ch, w)
		})
		return
	}
	// Not a part of the operation: it goes on without the channel, and ends with the process at the latest.
	go func() {
		if w.Write(collected, func(int) {}) == nil {
			_ = w.End()
		}
	}()
}

// collect takes the whole of a request's input, up to END.
func collect(ch *link.Channel) (input []byte, err error) {
	for {
		data, err := ch.Receive(nil)
		if err == io.EOF {
			return input, nil
		}
		if err != nil {
			return nil, err
		}
		if len(input)+len(data) > maxInput {
			return nil, fault.New(fault.BadRequest, "stdin: a request takes at most %d bytes", maxInput)
		}
		input = append(input, data...)
		ch.Grant(len(data))
	}
}
