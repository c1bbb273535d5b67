package server

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

func TestProcessorsFollowWhatIsUnderWay(t *testing.T) {
	before := runtime.GOMAXPROCS(2)
	defer runtime.GOMAXPROCS(before)
	synctest.Test(t, func(t *testing.T) {
		p := newProcessors()
		expect := func(what string, n int) {
			t.Helper()
			if got := runtime.GOMAXPROCS(0); got != n {
				t.Errorf("%s: %d processors", what, got)
			}
		}
		p.begin()
		expect("one operation", 1)
		p.begin()
		expect("two operations", 2)
		time.Sleep(2 * wideFor)
		expect("two operations, a while later", 2)
		p.end()
		p.end()
		expect("none, just now", 2)
		time.Sleep(2*wideFor + time.Millisecond)
		expect("none, a while later", 1)
		p.begin()
		p.begin()
		expect("two again", 2)
		p.end()
		p.end()
		time.Sleep(2*wideFor + time.Millisecond)
	})
}
