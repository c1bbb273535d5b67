package process

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestTombstonesGoAfterTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stones := newTombstones(time.Minute)
		stones.add("a")
		time.Sleep(30 * time.Second)
		stones.add("b")
		stones.add("c")
		time.Sleep(20 * time.Second)
		stones.add("b")
		for _, step := range []struct {
			wait    time.Duration
			a, b, c bool
		}{
			{9 * time.Second, true, true, true},
			{time.Second, false, true, true},
			{30 * time.Second, false, true, false},
			{20 * time.Second, false, false, false},
		} {
			time.Sleep(step.wait)
			if a, b, c := stones.has("a"), stones.has("b"), stones.has("c"); a != step.a || b != step.b || c != step.c {
				t.Fatal(a, b, c, step)
			}
		}
		if stones.order != nil || stones.until != nil {
			t.Fatal("memory is kept")
		}
	})
}

func TestTombstonesAreBounded(t *testing.T) {
	stones := newTombstones(time.Hour)
	for i := range maxTombstones + 10 {
		stones.add(fmt.Sprint(i))
	}
	if len(stones.order) != maxTombstones || len(stones.until) != maxTombstones {
		t.Fatal(len(stones.order), len(stones.until))
	}
	if stones.has("9") || !stones.has("10") || !stones.has(fmt.Sprint(maxTombstones+9)) {
		t.Fatal("not the oldest went")
	}
	for range maxTombstones {
		stones.add("again")
	}
	if len(stones.order) > maxTombstones || !stones.has("again") || stones.has("10") {
		t.Fatal(len(stones.order))
	}
}
