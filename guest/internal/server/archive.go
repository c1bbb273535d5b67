package server

import (
	"agentic-isolation/guest/internal/files"
	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/link"
)

type packRequest struct {
	Path    string   `json:"path"`
	Exclude []string `json:"exclude"`
}

func openPack(g *Guest, ch *link.Channel, raw []byte) (func(), error) {
	request, err := decode[packRequest](raw)
	if err != nil {
		return nil, err
	}
	return func() {
		summary, err := g.pack(ch, request)
		if err != nil {
			ch.Fail(err)
			return
		}
		ch.Result(summary)
	}, nil
}

func (g *Guest) pack(ch *link.Channel, r *packRequest) (files.Summary, error) {
	pack, err := g.files.Pack(r.Path, r.Exclude)
	if err != nil {
		return files.Summary{}, err
	}
	defer pack.Close()
	if err := ch.Event(fileEvent{Event: "directory", Entry: pack.Entry}); err != nil {
		return files.Summary{}, err
	}
	out := &outgoing{ch: ch}
	summary, err := pack.Stream(out)
	if err == nil {
		err = out.flush()
	}
	return summary, err
}

// outgoing sends what is written to it, in frames as full as possible, as fast as credit comes.
type outgoing struct {
	ch     *link.Channel
	queued []byte
}

func (o *outgoing) Write(b []byte) (int, error) {
	for rest := b; len(rest) > 0; {
		if o.queued == nil {
			o.queued = make([]byte, 0, frame.MaxData)
		}
		n := min(len(rest), frame.MaxData-len(o.queued))
		o.queued = append(o.queued, rest[:n]...)
		rest = rest[n:]
		if len(o.queued) == frame.MaxData {
			if err := o.flush(); err != nil {
				return 0, err
			}
		}
	}
	return len(b), nil
}

func (o *outgoing) flush() error {
	if len(o.queued) == 0 {
		return nil
	}
	if err := o.ch.AwaitCredit(); err != nil {
		return err
	}
	err := o.ch.SendData(o.queued)
	o.queued = o.queued[:0]
	return err
}

type unpackRequest struct {
	Path string `json:"path"`
}

func openUnpack(g *Guest, ch *link.Channel, raw []byte) (func(), error) {
	request, err := decode[unpackRequest](raw)
	if err != nil {
		return nil, err
	}
	ch.AcceptData()
	return func() {
		summary, err := g.files.Unpack(request.Path, &incoming{ch: ch})
		if err != nil {
			ch.Fail(err)
			return
		}
		ch.Result(summary)
	}, nil
}

// incoming is what the service sends until END.
type incoming struct {
	ch *link.Channel
	// data is what has arrived; rest is what of it has not been read.
	data, rest []byte
}

func (i *incoming) Read(b []byte) (int, error) {
	if len(i.rest) == 0 {
		if len(i.data) > 0 {
			i.ch.Grant(len(i.data))
		}
		data, err := i.ch.Receive(i.data)
		i.data, i.rest = data, data
		if err != nil {
			return 0, err
		}
	}
	n := copy(b, i.rest)
	i.rest = i.rest[n:]
	return n, nil
}
