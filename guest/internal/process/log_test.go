package process

import (
	"bytes"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"agentic-isolation/guest/internal/frame"
)

type piece struct {
	source frame.Type
	bytes  string
}

// read takes all that a reader with unlimited credit gets from offset at.
func read(l *Log, at uint64) (pieces []piece, gap, next uint64) {
	for {
		out, after, used, atEnd := l.AppendFrames(nil, 1, at, 1<<30)
		d := frame.NewDecoder(bytes.NewReader(out))
		for {
			f, err := d.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				panic(err)
			}
			if f.Type == frame.Gap {
				gap += after - at - uint64(used)
				continue
			}
			pieces = append(pieces, piece{f.Type, string(f.Payload)})
		}
		at = after
		if atEnd {
			return pieces, gap, at
		}
	}
}

func add(l *Log, source Source, s string) { l.Append(source, []byte(s), false) }

func TestLogKeepsTheOrderAndMerges(t *testing.T) {
	l := NewLog(Hold)
	add(l, Stdout, "a\n")
	add(l, Stdout, "b\n")
	add(l, Stderr, "c\n")
	add(l, Stdout, "d\n")
	pieces, gap, next := read(l, 0)
	want := []piece{{frame.Stdout, "a\nb\n"}, {frame.Stderr, "c\n"}, {frame.Stdout, "d\n"}}
	if len(pieces) != 3 || pieces[0] != want[0] || pieces[1] != want[1] || pieces[2] != want[2] || gap != 0 || next != 8 {
		t.Fatalf("%v %d %d", pieces, gap, next)
	}
	if pieces, _, _ := read(l, 3); pieces[0] != (piece{frame.Stdout, "\n"}) || len(pieces) != 3 {
		t.Fatalf("from inside: %v", pieces)
	}
	if pieces, _, _ := read(l, 8); len(pieces) != 0 {
		t.Fatalf("at the end: %v", pieces)
	}
}

func TestLogMergesOnlyUpToAFrame(t *testing.T) {
	l := NewLog(Hold)
	block := string(bytes.Repeat([]byte("x"), 40<<10))
	add(l, Stdout, block)
	add(l, Stdout, block)
	if pieces, _, _ := read(l, 0); len(pieces) != 2 || pieces[0].bytes != block {
		t.Fatal(len(pieces))
	}
}

func TestLogCreditOvershootsByLessThanAFrame(t *testing.T) {
	l := NewLog(Hold)
	add(l, Stdout, "0123456789")
	add(l, Stderr, "abc")
	_, next, used, atEnd := l.AppendFrames(nil, 1, 0, 1)
	if next != 10 || used != 10 || atEnd {
		t.Fatal(next, used, atEnd)
	}
	if out, next, used, _ := l.AppendFrames(nil, 1, 10, 0); len(out) != 0 || next != 10 || used != 0 {
		t.Fatal("sent without credit")
	}
}

func TestLogDrops(t *testing.T) {
	l := NewLog(Drop)
	block := bytes.Repeat([]byte("x"), frame.MaxData)
	const total = 100 * frame.MaxData
	for range 100 {
		l.Append(Stdout, block, false)
	}
	pieces, gap, next := read(l, 0)
	kept := 0
	for _, p := range pieces {
		kept += len(p.bytes)
	}
	if uint64(kept)+gap != total || next != total || kept > logCapacity || kept < logCapacity-2*frame.MaxData {
		t.Fatalf("kept %d, gap %d", kept, gap)
	}
	if l.Lost(Stdout) != gap || l.Lost(Stderr) != 0 {
		t.Fatal(l.Lost(Stdout))
	}
	if l.Size() > 2*logCapacity {
		t.Fatal(l.Size())
	}
}

func TestLogHoldsForItsReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLog(Hold)
		block := bytes.Repeat([]byte("x"), frame.MaxData)
		written := 0
		go func() {
			for range 64 {
				l.Append(Stdout, block, false)
				written++
			}
		}()
		synctest.Wait()
		if written != logCapacity/frame.MaxData {
			t.Errorf("%d blocks fit", written)
		}
		at := uint64(0)
		for at < 64*frame.MaxData {
			_, next, _, _ := l.AppendFrames(nil, 1, at, 1)
			if next == at {
				t.Fatal("nothing to read, and the writer is held")
			}
			at = next
			synctest.Wait()
			if start, _ := l.Bounds(); at > keptBack && start > at-keptBack {
				t.Fatalf("at %d only what follows %d is kept", at, start)
			}
		}
	})
}

// As much is kept of output that alternates between the sources as of any other, in hardly more memory.
func TestLogOfTinyAlternatingEntries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLog(Hold)
		const n = 3 * logCapacity
		go func() {
			for i := range n {
				l.Append(Source(i%2), []byte("x"), false)
			}
		}()
		for at := uint64(0); at < n; {
			synctest.Wait()
			_, next, _, _ := l.AppendFrames(nil, 1, at, 1<<20)
			if next == at {
				t.Fatalf("stuck at %d", at)
			}
			at = next
			if start, _ := l.Bounds(); at > keptBack && start > at-keptBack {
				t.Fatalf("at %d only what follows %d is kept", at, start)
			}
			if l.Size() > 3*logCapacity/2 {
				t.Fatalf("a log of %d bytes", l.Size())
			}
		}
	})
}

// plainLog is what a log is to do, in another way: all of its entries, as lists.
type plainLog struct {
	entries []piece
	start   int // of them, the first that is kept
	offset  uint64
}

func (p *plainLog) append(source frame.Type, s string) {
	last := len(p.entries) - 1
	if last >= p.start && p.entries[last].source == source && len(p.entries[last].bytes)+len(s) <= frame.MaxData {
		p.entries[last].bytes += s
	} else {
		p.entries = append(p.entries, piece{source, s})
	}
}

func (p *plainLog) trim(start uint64) {
	for p.offset < start {
		p.offset += uint64(len(p.entries[p.start].bytes))
		p.start++
	}
}

func TestLogAgainstAPlainOne(t *testing.T) {
	chance := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		l, plain := NewLog(Drop), &plainLog{}
		longest := []int{3, 200, 5_000, frame.MaxData}[chance.IntN(4)]
		for i := range 2_000 {
			s := strings.Repeat(string(rune('a'+i%26)), 1+chance.IntN(longest))
			source := Source(chance.IntN(2))
			add(l, source, s)
			plain.append(source.frameType(), s)
			start, _ := l.Bounds()
			plain.trim(start)
			if plain.offset != start {
				t.Fatalf("the log begins within an entry, at %d", start)
			}
			if i%500 != 499 {
				continue
			}
			if i == 1_999 {
				l.Seal()
			}
			if pieces, _, _ := read(l, start); !slices.Equal(pieces, plain.entries[plain.start:]) {
				t.Fatalf("%d entries of up to %d bytes, want %d", len(pieces), longest, len(plain.entries)-plain.start)
			}
		}
	}
}

func TestLogReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLog(Hold)
		block := bytes.Repeat([]byte("x"), frame.MaxData)
		done := map[bool]int{}
		write := func(straggler bool) {
			for range 20 {
				l.Append(Stdout, block, straggler)
			}
			done[straggler]++
		}
		go write(false)
		synctest.Wait()
		go write(true)
		synctest.Wait()
		l.Release(releaseCommand)
		synctest.Wait()
		if done[false] != 1 || done[true] != 0 {
			t.Fatalf("%v", done)
		}
		l.Release(releaseAll)
		synctest.Wait()
		if done[true] != 1 {
			t.Fatalf("%v", done)
		}
		if _, _, next := read(l, 0); next != 40*frame.MaxData {
			t.Fatal(next)
		}
	})
}

func TestIdleLogCostsNothing(t *testing.T) {
	l := NewLog(Hold)
	if l.Size() != 0 {
		t.Fatal(l.Size())
	}
	add(l, Stdout, "x")
	l.Seal()
	if l.Size() > 100 {
		t.Fatal(l.Size())
	}
	if pieces, _, _ := read(l, 0); len(pieces) != 1 || pieces[0].bytes != "x" {
		t.Fatal(pieces)
	}
}

func TestCaptureKeepsHeadAndTail(t *testing.T) {
	for _, test := range []struct {
		limit   int
		writes  []string
		kept    string
		omitted uint64
	}{
		{10, []string{"abc"}, "abc", 0},
		{10, []string{"0123456789"}, "0123456789", 0},
		{10, []string{"0123456789a"}, "01234" + "6789a", 1},
		{10, []string{"012", "3456", "789abcdefghijk", "l", "mn"}, "01234" + "jklmn", 14},
		{11, []string{"0123456789abcdef"}, "01234" + "abcdef", 5},
		{1, []string{"ab", "c"}, "c", 2},
		{0, []string{"abc"}, "", 3},
	} {
		c := newCapture(test.limit)
		for _, w := range test.writes {
			c.write(Stderr, []byte(w))
		}
		s := c.summary(Stderr)
		l := NewLog(Hold)
		c.pour(l)
		pieces, _, _ := read(l, 0)
		got := ""
		for _, p := range pieces {
			got += p.bytes
		}
		if got != test.kept || s.Omitted != test.omitted {
			t.Errorf("%d %q: kept %q, omitted %d", test.limit, test.writes, got, s.Omitted)
		}
		if s.Omitted > 0 && *s.Head != test.limit/2 {
			t.Errorf("%d %q: head %d", test.limit, test.writes, *s.Head)
		}
	}
}

func TestCaptureOfMuchAgainstAPlainOne(t *testing.T) {
	const limit = 1000
	c := newCapture(limit)
	var all []byte
	for i := range 5000 {
		b := bytes.Repeat([]byte{byte(i)}, i%97)
		c.write(Stdout, b)
		all = append(all, b...)
	}
	l := NewLog(Hold)
	c.pour(l)
	var got []byte
	pieces, _, _ := read(l, 0)
	for _, p := range pieces {
		got = append(got, p.bytes...)
	}
	want := append(append([]byte(nil), all[:limit/2]...), all[len(all)-limit/2:]...)
	if !bytes.Equal(got, want) {
		t.Fatal("wrong bytes")
	}
}
