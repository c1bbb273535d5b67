//go:build linux

package main

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/frame"
	"agentic-isolation/guest/internal/guesttest"
)

// openFiles are the files of the workspace and the watches that the guest has open.
func openFiles(t *testing.T, g *guesttest.Guest) (open []string) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", g.PID())
	for _, name := range names(t, dir) {
		target, _ := os.Readlink(filepath.Join(dir, name))
		if strings.HasPrefix(target, g.Root+"/") || strings.Contains(target, "inotify") {
			open = append(open, target)
		}
	}
	return open
}

func names(t *testing.T, dir string) (found []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		found = append(found, e.Name())
	}
	return found
}

func TestDigests(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	content := []byte("content")
	raw := sha256.Sum256(content)
	sum := hex.EncodeToString(raw[:])
	write := func(claim string) *guesttest.Outcome {
		ch := c.Open("write", map[string]any{"path": "f", "digest": true})
		ch.Send(content)
		ch.EndWith(claim)
		return ch.Finish()
	}
	for claim, reason := range map[string]fault.Reason{
		`{"bytes": 6}`:   fault.ContentMismatch,
		`{"sha256": ""}`: fault.ContentMismatch,
		`{"bytes": "7"}`: fault.BadRequest,
		`{"bytes": 7, "sha256": "` + strings.Repeat("0", 64) + `"}`: fault.ContentMismatch,
	} {
		wantFault(t, write(claim), reason)
	}
	if left := names(t, g.Root); len(left) != 0 {
		t.Fatal(left)
	}
	for _, claim := range []string{"", "{}", `{"bytes": 7}`, `{"bytes": 7, "sha256": "` + sum + `", "x": 1}`} {
		if o := write(claim); o.Err != nil || o.Result["sha256"] != sum || o.Result["size"] != 7.0 {
			t.Fatal(claim, o.Err, o.Result)
		}
	}
	if o := c.Do("read", map[string]any{"path": "f", "digest": true}); o.Result["sha256"] != sum || o.Result["bytes"] != 7.0 {
		t.Fatal(o.Err, o.Result)
	}
	if o := c.Do("read", map[string]any{"path": "f"}); o.Result["sha256"] != nil {
		t.Fatal(o.Result)
	}
	// Nobody else may say so.
	for _, claim := range []string{"x", "[]", "null"} {
		ch := g.Connect().Open("write", map[string]any{"path": "f", "digest": true})
		ch.EndWith(claim)
		awaitLinkEnd(t, ch)
	}
	for op, client := range map[string]*guesttest.Client{"write": g.Connect(), "unpack": g.Connect()} {
		ch := client.Open(op, map[string]any{"path": "of-" + op})
		ch.EndWith("{}")
		awaitLinkEnd(t, ch)
	}
	ch := g.ConnectBy(2).Open("write", map[string]any{"path": "f", "digest": true})
	ch.EndWith("{}")
	awaitLinkEnd(t, ch)
}

func awaitLinkEnd(t *testing.T, ch *guesttest.Channel) {
	t.Helper()
	if f, ok := ch.Next(); ok {
		t.Fatalf("%v %q, not the link's end", f.Type, f.Payload)
	}
}

func TestArchives(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	content := bytes.Repeat([]byte("0123456789"), 60_000)
	for i := range 3 {
		_ = w.WriteHeader(&tar.Header{Name: fmt.Sprintf("d/f%d", i), Mode: 0o600, Size: int64(len(content)), ModTime: time.Unix(5, 0)})
		_, _ = w.Write(content)
	}
	_ = w.Close()
	ch := c.Open("unpack", map[string]any{"path": "a"})
	ch.SendAll(archive.Bytes(), 256<<10)
	ch.End()
	want := map[string]any{"files": 3.0, "directories": 0.0, "symlinks": 0.0, "skipped": 0.0, "bytes": 1_800_000.0}
	if o := ch.Finish(); o.Err != nil || fmt.Sprint(o.Result) != fmt.Sprint(want) {
		t.Fatal(o.Err, o.Result)
	}
	// A reader that stops holds the guest up, not others.
	stopped := c.Open("pack", map[string]any{"path": "a"})
	stopped.Manual = true
	stopped.AwaitEvent()
	o := c.Do("pack", map[string]any{"path": "a", "exclude": []string{"d/f1"}})
	if o.Err != nil || o.Events[0]["event"] != "directory" || o.Events[0]["path"] != "/workspace/a" || o.Result["files"] != 2.0 {
		t.Fatal(o.Err, o.Events, o.Result)
	}
	r := tar.NewReader(bytes.NewReader(o.Data))
	for _, name := range []string{"d/", "d/f0", "d/f2"} {
		h, err := r.Next()
		if err != nil || h.Name != name {
			t.Fatal(h, err)
		}
		if got, err := io.ReadAll(r); err != nil || h.Size > 0 && !bytes.Equal(got, content) {
			t.Fatal(len(got), err)
		}
	}
	stopped.Close()
	wantFault(t, stopped.Finish(), fault.Cancelled)
	// What a cut leaves is whole.
	for _, isClosed := range []bool{true, false} {
		client := g.Connect()
		ch = client.Open("unpack", map[string]any{"path": "b"})
		ch.SendAll(archive.Bytes()[:1_000_000], 256<<10)
		if isClosed {
			ch.Close()
			wantFault(t, ch.Finish(), fault.Cancelled)
		}
		client.Conn.Close()
		eventually(t, "only what is whole is left", func() bool {
			left := names(t, filepath.Join(g.Root, "b/d"))
			return len(openFiles(t, g)) == 0 && len(left) == 1 && left[0] == "f0"
		})
	}
	ch = c.Open("unpack", map[string]any{"path": "b"})
	ch.Send(archive.Bytes()[:100_000])
	ch.End()
	wantFault(t, ch.Finish(), fault.BadArchive)
	for _, o := range []*guesttest.Outcome{
		c.Do("copy", map[string]any{"from": "a", "to": "c", "recursive": true}),
		c.Do("chmod", map[string]any{"path": "c", "mode": 0o700}),
	} {
		if o.Err != nil || o.Result["path"] != "/workspace/c" {
			t.Error(o.Err, o.Result)
		}
	}
	for _, mode := range []any{nil, -1, 0o1000, "7"} {
		wantFault(t, c.Do("chmod", map[string]any{"path": "c", "mode": mode}), fault.BadRequest)
	}
	page := c.Do("list", map[string]any{"path": "a", "depth": 2, "limit": 2}).Result
	if page["next"] != "d/f0" || page["more"] != true {
		t.Error(page)
	}
	wantFault(t, c.Do("list", map[string]any{"path": "a", "depth": 0}), fault.BadRequest)
}

func TestWatchTells(t *testing.T) {
	g := guesttest.Start(t, nil)
	c := g.Connect()
	ch := c.Open("watch", map[string]any{"path": ".", "recursive": true})
	if e := ch.AwaitEvent(); e["event"] != "watching" || e["path"] != "/workspace" {
		t.Fatal(e)
	}
	if err := os.Mkdir(filepath.Join(g.Root, "d<"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, _ := ch.Next()
	var change map[string]any
	if err := json.Unmarshal(f.Payload, &change); err != nil || f.Payload[len(f.Payload)-1] != '\n' {
		t.Fatalf("%q %v", f.Payload, err)
	}
	if change["change"] != "created" || change["path"] != "/workspace/d<" || change["directory"] != true {
		t.Error(change)
	}
	ch.Close()
	wantFault(t, ch.Finish(), fault.Cancelled)
	// One whose reader does not read ends at once as well.
	ch = c.Open("watch", map[string]any{"path": "."})
	ch.Manual = true
	ch.AwaitEvent()
	for i := range 3000 {
		name := filepath.Join(g.Root, fmt.Sprintf("%0200d", i))
		if err := os.WriteFile(name, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for n := 0; n < 200<<10; {
		f, _ := ch.Next()
		if f.Type != frame.Data {
			t.Fatal(f)
		}
		n += len(f.Payload)
	}
	ch.Close()
	wantFault(t, ch.Finish(), fault.Cancelled)
	eventually(t, "no watch is open", func() bool { return len(openFiles(t, g)) == 0 })
	ch = c.Open("watch", map[string]any{"path": "d<"})
	ch.AwaitEvent()
	if err := os.Remove(filepath.Join(g.Root, "d<")); err != nil {
		t.Fatal(err)
	}
	if o := ch.Finish(); o.Err != nil || !strings.Contains(string(o.Data), `"removed"`) {
		t.Error(o.Err, string(o.Data))
	}
	// It holds up nobody's end.
	ch = c.Open("watch", map[string]any{"path": "."})
	ch.AwaitEvent()
	if o := c.Do("shutdown", nil); o.Err != nil {
		t.Fatal(o.Err)
	}
	wantFault(t, ch.Finish(), fault.ShuttingDown)
}
