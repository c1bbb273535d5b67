package server

import (
	"os"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/files"
	"agentic-isolation/guest/internal/link"
)

type statRequest struct {
	Path   string `json:"path"`
	Follow *bool  `json:"follow"`
}

func (g *Guest) stat(_ *link.Channel, r *statRequest) (files.Entry, error) {
	return g.files.Stat(r.Path, r.Follow == nil || *r.Follow)
}

type listRequest struct {
	Path  string `json:"path"`
	Limit *int   `json:"limit"`
	After string `json:"after"`
	Depth *int   `json:"depth"`
}

func (g *Guest) list(_ *link.Channel, r *listRequest) (files.Listing, error) {
	limit := files.MaxEntries
	if r.Limit != nil {
		limit = *r.Limit
	}
	if limit < 1 || limit > files.MaxEntries {
		return files.Listing{}, fault.New(fault.BadRequest, "limit: want 1 to %d, not %d", files.MaxEntries, limit)
	}
	depth := 1
	if r.Depth != nil {
		depth = *r.Depth
	}
	if depth < 1 || depth > files.MaxDepth {
		return files.Listing{}, fault.New(fault.BadRequest, "depth: want 1 to %d, not %d", files.MaxDepth, depth)
	}
	return g.files.List(r.Path, r.After, limit, depth)
}

type mkdirRequest struct {
	Path    string `json:"path"`
	Mode    *int   `json:"mode"`
	Parents bool   `json:"parents"`
}

func (g *Guest) mkdir(_ *link.Channel, r *mkdirRequest) (files.Entry, error) {
	mode := 0o755
	if r.Mode != nil {
		mode = *r.Mode
	}
	if err := checkMode(mode, 0); err != nil {
		return files.Entry{}, err
	}
	return g.files.Mkdir(r.Path, os.FileMode(mode), r.Parents)
}

func checkMode(mode, lowest int) error {
	if mode < lowest || mode > files.MaxMode {
		return fault.New(fault.BadRequest, "mode: want permission bits, %d to %d, not %d", lowest, files.MaxMode, mode)
	}
	return nil
}

type removeRequest struct {
	Path      string `json:"path"`
	Recursive bool   `json:"recursive"`
}

func (g *Guest) remove(ch *link.Channel, r *removeRequest) (none, error) {
	return none{}, g.files.Remove(r.Path, r.Recursive, ch.Closed())
}

type moveRequest struct {
	From      string `json:"from"`
	To        string `json:"to"`
	Overwrite bool   `json:"overwrite"`
}

func (g *Guest) move(_ *link.Channel, r *moveRequest) (files.Entry, error) {
	return g.files.Move(r.From, r.To, r.Overwrite)
}

type copyRequest struct {
	From      string `json:"from"`
	To        string `json:"to"`
	Overwrite bool   `json:"overwrite"`
	Recursive bool   `json:"recursive"`
}

func (g *Guest) copy(ch *link.Channel, r *copyRequest) (files.Entry, error) {
	return g.files.Copy(r.From, r.To, r.Overwrite, r.Recursive, ch.Closed())
}

type chmodRequest struct {
	Path string `json:"path"`
	Mode *int   `json:"mode"`
}

func (g *Guest) chmod(_ *link.Channel, r *chmodRequest) (files.Entry, error) {
	if r.Mode == nil {
		return files.Entry{}, fault.New(fault.BadRequest, "mode: is required")
	}
	if err := checkMode(*r.Mode, 0); err != nil {
		return files.Entry{}, err
	}
	return g.files.Chmod(r.Path, os.FileMode(*r.Mode))
}
