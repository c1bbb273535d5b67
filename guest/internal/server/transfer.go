package server

import (
	"io"
	"sync"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/files"
	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/link"
)

type readRequest struct {
	Path   string `json:"path"`
	Offset int64  `json:"offset"`
	Length *int64 `json:"length"`
	Digest bool   `json:"digest"`
}

type fileEvent struct {
	Event string `json:"event"`
	files.Entry
}

type readResult struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256,omitempty"`
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
		sum := newDigest(request.Digest)
		total, err := g.read(ch, request.Path, request.Offset, length, sum)
		if err != nil {
			ch.Fail(err)
			return
		}
		ch.Result(readResult{Bytes: total, SHA256: sum.text()})
	}, nil
}

func (g *Guest) read(ch *link.Channel, path string, offset, length int64, sum digest) (total int64, err error) {
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
		n, err := g.readChunk(ch, file, sum)
		if n == 0 || err != nil {
			return total, err
		}
		total += int64(n)
	}
}

// readChunk holds a buffer only while there is credit to send what it reads.
func (g *Guest) readChunk(ch *link.Channel, file *files.Reader, sum digest) (int, error) {
	chunk := chunks.Get().(*[frame.MaxData]byte)
	defer chunks.Put(chunk)
	n, err := file.Next(chunk[:])
	if n == 0 || err != nil {
		return 0, err
	}
	sum.add(chunk[:n])
	return n, ch.SendData(chunk[:n])
}

type writeRequest struct {
	Path    string `json:"path"`
	Mode    *int   `json:"mode"`
	Parents *bool  `json:"parents"`
	Digest  bool   `json:"digest"`
}

type writeResult struct {
	files.Entry
	SHA256 string `json:"sha256,omitempty"`
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
	if request.Digest {
		ch.AcceptClaim()
	}
	return func() {
		sum := newDigest(request.Digest)
		entry, err := g.write(ch, request.Path, mode, request.Parents == nil || *request.Parents, sum)
		if err != nil {
			ch.Fail(err)
			return
		}
		ch.Result(writeResult{Entry: entry, SHA256: sum.text()})
	}, nil
}

func (g *Guest) write(ch *link.Channel, path string, mode int, parents bool, sum digest) (files.Entry, error) {
	upload, err := g.files.Create(path, mode, parents)
	if err != nil {
		return files.Entry{}, err
	}
	total, err := receive(ch, upload, sum)
	if err == nil {
		err = sum.check(path, total, ch.Claim())
	}
	if err != nil {
		upload.Abort()
		return files.Entry{}, err
	}
	return upload.Commit()
}

// receive writes what comes until END.
func receive(ch *link.Channel, upload *files.Upload, sum digest) (total int64, err error) {
	var spare []byte
	for {
		data, err := ch.Receive(spare)
		if err == io.EOF {
			return total, nil
		}
		if err == nil {
			err = upload.Write(data)
		}
		if err != nil {
			return total, err
		}
		sum.add(data)
		total += int64(len(data))
		ch.Grant(len(data))
		spare = data
	}
}
