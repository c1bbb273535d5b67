package process

import (
	"bytes"
	"testing"
)

func ended(output int) *record {
	p := &Process{log: NewLog(Drop)}
	p.log.Append(Stdout, bytes.Repeat([]byte("x"), output), false)
	p.log.Seal()
	return &record{process: p}
}

func TestShareOfMemory(t *testing.T) {
	for memory, most := range map[int64]int{1: 1 << 20, 512 << 20: 32 << 20, 1 << 40: 64 << 20} {
		if f := newFinished(&memory); f.most != most {
			t.Errorf("%d of %d", f.most, memory)
		}
	}
	if f := newFinished(nil); f.most != 64<<20 {
		t.Error(f.most)
	}
}

func TestWhatGoesFirst(t *testing.T) {
	little := int64(1)
	f := newFinished(&little)
	var records []*record
	for i := range 5 {
		r := ended(60 << 10)
		r.delivered = i == 2 || i == 3
		records = append(records, r)
		f.add(r)
	}
	if r := f.surplus(); r != nil {
		t.Fatal("something is too much")
	}
	records[0].viewers, records[3].viewers = 1, 1
	for f.kept <= f.most {
		r := ended(60 << 10)
		r.viewers = 1
		f.add(r)
	}
	for _, want := range []*record{records[2], records[1], records[4], nil} {
		r := f.surplus()
		if r != want {
			t.Fatalf("%p, want %p of %v", r, want, records)
		}
		if r == nil {
			break
		}
		f.remove(r)
		f.remove(r) // which does nothing
		for f.kept <= f.most {
			more := ended(60 << 10)
			more.viewers = 1
			f.add(more)
		}
	}
}

func TestNumberOfFinished(t *testing.T) {
	f := newFinished(nil)
	for range maxFinished {
		f.add(ended(1))
	}
	if f.surplus() != nil {
		t.Fatal("one too few is kept")
	}
	f.add(ended(1))
	for r := f.surplus(); r != nil; r = f.surplus() {
		f.remove(r)
	}
	if len(f.records) != maxFinished || f.kept < maxFinished*footprint {
		t.Fatal(len(f.records), f.kept)
	}
}

func TestWhatIsKeptForObserversOnlyGoesFirst(t *testing.T) {
	little := int64(1)
	table := &Table{finished: newFinished(&little), records: map[string]*record{}}
	watched := ended(60 << 10)
	watched.observers = 1
	table.forget(watched)
	for table.finished.kept+70<<10 <= table.finished.most {
		table.finished.add(ended(60 << 10))
	}
	table.trim()
	if watched.process.log.Size() == 0 {
		t.Fatal("it is taken away while there is room")
	}
	table.finished.add(ended(200 << 10))
	table.trim()
	pieces, gap, next := read(watched.process.log, 0)
	if len(pieces) != 0 || gap != 60<<10 || next != 60<<10 || watched.process.log.Size() != 0 {
		t.Fatal(len(pieces), gap, next)
	}
	table.unobserve(watched)
	if table.finished.kept > table.finished.most {
		t.Fatal(table.finished.kept)
	}
}
