package server

import (
	"io"
	"os"
	"sync"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/files"
	"agentic-isolation/guest/internal/frame"
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
}

type listResult struct {
	Entries []files.Entry `json:"entries"`
	More    bool          `json:"more"`
}

func (g *Guest) list(_ *link.Channel, r *listRequest) (listResult, error) {
	limit := files.MaxEntries
	if r.Limit != nil {
		limit = *r.Limit
	}
	if limit < 1 || limit > files.MaxEntries {
		return listResult{}, fault.New(fault.BadRequest, "limit: want 1 to %d, not %d", files.MaxEntries, limit)
	}
	entries, more, err := g.files.List(r.Path, r.After, limit)
	return listResult{Entries: entries, More: more}, err
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

func (g *Guest) remove(_ *link.Channel, r *removeRequest) (none, error) {
	return none{}, g.files.Remove(r.Path, r.Recursive)
}

type moveRequest struct {
	From      string `json:"from"`
	To        string `json:"to"`
	Overwrite bool   `json:"overwrite"`
}

func (g *Guest) move(_ *link.Channel, r *moveRequest) (files.Entry, error) {
	return g.files.Move(r.From, r.To, r.Overwrite)
}

type readRequest struct {
	Path   string `json:"path"`
	Offset int64  `json:"offset"`
	Length *int64 `json:"length"`
}

type fileEvent struct {
	Event string `json:"event"`
	files.Entry
}

type readResult struct {
	Bytes int64 `json:"bytes"`
}

var chunks = sync.Pool{New: func() any { return new([frame.MaxData]byte) }}

func openRead(g *Guest, ch *link.Channel, raw []byte) (func(), error) {
	request, err := decode[readRequest](raw)
	if err != nil {
		return nil, err
	}
	length := int64(-1)
	if request.Length != nil {
		length = *request.Length
	}
	if request.Offset < 0 || length < -1 {
		return nil, fault.New(fault.BadRequest, "offset: must not be negative; length: must be -1 or more")
	}
	return func() {
		total, err := g.read(ch, request.Path, request.Offset, length)
		if err != nil {
			ch.Fail(err)
			return
		}
		ch.Result(readResult{Bytes: total})
	}, nil
}

func (g *Guest) read(ch *link.Channel, path string, offset, length int64) (total int64, err error) {
	file, err := g.files.Open(path, offset, length)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	if err := ch.Event(fileEvent{Event: "file", Entry: file.Entry}); err != nil {
		return 0, err
	}
	for {
		if err := ch.AwaitCredit(); err != nil {
			return 0, err
		}
		n, err := g.readChunk(ch, file)
		if n == 0 || err != nil {
			return total, err
		}
		total += int64(n)
	}
}

// readChunk holds a buffer only while there is credit to send what it reads.
func (g *Guest) readChunk(ch *link.Channel, file *files.Reader) (int, error) {
	chunk := chunks.Get().(*[frame.MaxData]byte)
	defer chunks.Put(chunk)
	n, err := file.Next(chunk[:])
	if n == 0 || err != nil {
		return 0, err
	}
	return n, ch.SendData(chunk[:n])
}

type writeRequest struct {
	Path    string `json:"path"`
	Mode    *int   `json:"mode"`
	Parents *bool  `json:"parents"`
}

func openWrite(g *Guest, ch *link.Channel, raw []byte) (func(), error) {
	request, err := decode[writeRequest](raw)
	if err != nil {
		return nil, err
	}
	mode := files.KeepMode
	if request.Mode != nil {
		mode = *request.Mode
	}
	if err := checkMode(mode, files.KeepMode); err != nil {
		return nil, err
	}
	ch.AcceptData()
	return func() {
		entry, err := g.write(ch, request.Path, mode, request.Parents == nil || *request.Parents)
		if err != nil {
			ch.Fail(err)
			return
		}
		ch.Result(entry)
	}, nil
}

func (g *Guest) write(ch *link.Channel, path string, mode int, parents bool) (files.Entry, error) {
	upload, err := g.files.Create(path, mode, parents)
	if err != nil {
		return files.Entry{}, err
	}
	var spare []byte
	for {
		data, err := ch.Receive(spare)
		if err == io.EOF {
			return upload.Commit()
		}
		if err == nil {
			err = upload.Write(data)
		}
		if err != nil {
			upload.Abort()
			return files.Entry{}, err
		}
		ch.Grant(len(data))
		spare = data
	}
}
