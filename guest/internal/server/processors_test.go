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
		p.begin(true)
		expect("one operation on files", 1)
		p.begin(false)
		expect("a command beside it", 2)
		time.Sleep(2 * wideFor)
		expect("both, a while later", 2)
		p.end(false)
		p.end(true)
		expect("none, just now", 2)
		time.Sleep(2*wideFor + time.Millisecond)
		expect("none, a while later", 1)
		p.begin(false)
		p.begin(false)
		expect("two commands", 1)
		p.begin(true)
		expect("an operation on files beside them", 2)
		p.end(true)
		time.Sleep(2*wideFor + time.Millisecond)
		expect("two commands, a while later", 1)
		p.end(false)
		p.end(false)
	})
}
