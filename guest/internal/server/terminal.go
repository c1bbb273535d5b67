package server

import (
	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/link"
	"agentic-isolation/guest/internal/process"
)

const maxTerminal = 65_535

// terminalSize is a terminal's size, in characters.
type terminalSize struct {
	Columns int64 `json:"columns"`
	Rows    int64 `json:"rows"`
}

// check names the members by the prefix that they have in the request.
func (s *terminalSize) check(prefix string) (*process.Size, error) {
	if s.Columns < 1 || s.Columns > maxTerminal {
		return nil, fault.New(fault.BadRequest, "%scolumns: want 1 to %d, not %d", prefix, maxTerminal, s.Columns)
	}
	if s.Rows < 1 || s.Rows > maxTerminal {
		return nil, fault.New(fault.BadRequest, "%srows: want 1 to %d, not %d", prefix, maxTerminal, s.Rows)
	}
	return &process.Size{Columns: uint16(s.Columns), Rows: uint16(s.Rows)}, nil
}

type resizeRequest struct {
	ProcessID string `json:"process_id"`
	terminalSize
}

func (g *Guest) resize(_ *link.Channel, r *resizeRequest) (none, error) {
	size, err := r.check("")
	if err != nil {
		return none{}, err
	}
	p, err := g.table.Find(r.ProcessID)
	if err != nil {
		return none{}, err
	}
	return none{}, p.Resize(*size)
}
