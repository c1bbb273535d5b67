package server

import (
	"runtime"
	"testing"
	"testing/synctest"
	"time"
)

func TestRestGivesMemoryBackOnceNothingIsUnderWay(t *testing.T) {
	forced := func() uint32 {
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		return stats.NumForcedGC
	}
	synctest.Test(t, func(t *testing.T) {
		r := &rest{}
		before := forced()
		r.begin()
		r.begin()
		r.end()
		time.Sleep(3 * restAfter)
		if forced() != before {
			t.Error("it rested while something was under way")
		}
		r.end()
		time.Sleep(3 * restAfter)
		once := forced()
		if once == before {
			t.Error("it never rested")
		}
		time.Sleep(3 * restAfter)
		if forced() != once {
			t.Error("it rested again though nothing had been under way since")
		}
	})
}
