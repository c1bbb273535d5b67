package server

import (
	"encoding/json"
	"time"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/link"
)

// none is the result of an operation that has nothing to tell.
type none struct{}

// operation reads a request, at once, and returns what performs it.
type operation func(g *Guest, ch *link.Channel, request []byte) (perform func(), err error)

var operations = map[string]operation{
	"run":      openRun,
	"attach":   openAttach,
	"input":    openInput,
	"resize":   simple((*Guest).resize),
	"wait":     simple((*Guest).wait),
	"secrets":  simple((*Guest).keepSecrets),
	"signal":   simple((*Guest).signal),
	"kill":     simple((*Guest).kill),
	"ps":       simple((*Guest).ps),
	"lease":    simple((*Guest).renew),
	"info":     simple((*Guest).info),
	"usage":    simple((*Guest).usage),
	"remember": simple((*Guest).remember),
	"claim":    simple((*Guest).claim),
	"shutdown": simple((*Guest).shutdown),
	"stat":     simple((*Guest).stat),
	"list":     simple((*Guest).list),
	"mkdir":    simple((*Guest).mkdir),
	"remove":   simple((*Guest).remove),
	"move":     simple((*Guest).move),
	"copy":     simple((*Guest).copy),
	"chmod":    simple((*Guest).chmod),
	"pack":     openPack,
	"unpack":   openUnpack,
	"watch":    simple((*Guest).watch),
	"read":     openRead,
	"write":    openWrite,
}

// since is the protocol version that brought an operation, where that is not the first.
var since = map[string]int{
	"remember": 2, "input": 3, "resize": 3, "wait": 3, "secrets": 3, "copy": 3,
	"chmod": 3, "pack": 3, "unpack": 3, "watch": 3, "claim": 4,
}

// membersSince is the same of the members of older operations.
var membersSince = map[string]map[string]int{
	"run":    {"request": 2, "input": 3, "terminal": 3, "redact": 3},
	"attach": {"observe": 3},
	"signal": {"foreground": 3},
	"kill":   {"forbid": 2},
	"list":   {"depth": 3},
	"read":   {"digest": 3},
	"write":  {"digest": 3},
}

// aside are the operations by which a workspace is looked after, not used: they do not keep it from being idle.
var aside = map[string]bool{"lease": true, "info": true, "usage": true, "ps": true, "remember": true, "claim": true}

// Open implements link.Service.
func (g *Guest) Open(ch *link.Channel, op string, request []byte) func() {
	perform := g.open(ch, op, request)
	if aside[op] {
		return perform
	}
	g.lease.Begin()
	g.processors.begin()
	g.rest.begin()
	return func() {
		defer g.lease.End()
		defer g.processors.end()
		defer g.rest.end()
		perform()
	}
}

func (g *Guest) open(ch *link.Channel, op string, request []byte) func() {
	open, exists := operations[op]
	var perform func()
	var err error
	switch {
	case !exists, ch.Version() < since[op]:
		err = fault.New(fault.Unsupported, "no operation %q in version %d of the protocol", op, ch.Version())
	case g.isEnding() && op != "shutdown":
		err = fault.New(fault.ShuttingDown, "the guest is ending")
	default:
		perform, err = open(g, ch, known(op, ch.Version(), request))
	}
	if err != nil {
		// What the service has sent before it heard of this is no offence.
		ch.AcceptData()
		ch.AcceptClaim()
		return func() { ch.Fail(err) }
	}
	return perform
}

// known is a request without the members that a link's version lacks.
func known(op string, version int, request []byte) []byte {
	if version == link.HighestVersion || membersSince[op] == nil {
		return request
	}
	var members map[string]json.RawMessage
	if json.Unmarshal(request, &members) != nil {
		return request
	}
	for name, since := range membersSince[op] {
		if version < since {
			delete(members, name)
		}
	}
	if left, err := json.Marshal(members); err == nil {
		return left
	}
	return request
}

// simple makes an operation of a function from a request to a result.
func simple[Request, Result any](act func(*Guest, *link.Channel, *Request) (Result, error)) operation {
	return func(g *Guest, ch *link.Channel, raw []byte) (func(), error) {
		request, err := decode[Request](raw)
		if err != nil {
			return nil, err
		}
		return func() {
			result, err := act(g, ch, request)
			if err != nil {
				ch.Fail(err)
				return
			}
			ch.Result(result)
		}, nil
	}
}

func decode[Request any](raw []byte) (*Request, error) {
	request := new(Request)
	if err := json.Unmarshal(raw, request); err != nil {
		return nil, fault.New(fault.BadRequest, "%v", err)
	}
	return request, nil
}

// maxMillis is some thirty years; nothing waits longer.
const maxMillis = int64(1) << 40

// millis checks a time of a request.
func millis(name string, n, lowest int64) (time.Duration, error) {
	if n < lowest {
		return 0, fault.New(fault.BadRequest, "%s: must be at least %d, not %d", name, lowest, n)
	}
	return time.Duration(min(n, maxMillis)) * time.Millisecond, nil
}
