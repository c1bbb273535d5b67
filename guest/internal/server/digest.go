package server

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"strings"

	"agentic-isolation/guest/internal/fault"
)

// digest is what a file's content comes to, where it was asked for.
type digest struct{ hash hash.Hash }

func newDigest(isWanted bool) digest {
	if !isWanted {
		return digest{}
	}
	return digest{sha256.New()}
}

func (d digest) add(b []byte) {
	if d.hash != nil {
		d.hash.Write(b)
	}
}

// text is empty where no digest was asked for.
func (d digest) text() string {
	if d.hash == nil {
		return ""
	}
	return hex.EncodeToString(d.hash.Sum(nil))
}

// claim is what the service says that the data comes to.
type claim struct {
	Bytes  *int64  `json:"bytes"`
	SHA256 *string `json:"sha256"`
}

// check compares what has come for a path with what it was to be.
func (d digest) check(path string, total int64, raw []byte) error {
	if raw == nil {
		return nil
	}
	said, err := decode[claim](raw)
	if err != nil {
		return err
	}
	if said.Bytes != nil && *said.Bytes != total {
		return fault.New(fault.ContentMismatch, "%q: %d bytes have come where %d were announced", path, total, *said.Bytes)
	}
	if said.SHA256 != nil && !strings.EqualFold(*said.SHA256, d.text()) {
		return fault.New(fault.ContentMismatch, "%q: what has come has the SHA-256 %s, not %s", path, d.text(), *said.SHA256)
	}
	return nil
}
