package lease

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// wantEnd waits for the end, which must come after so long and for that reason.
func wantEnd(t *testing.T, l *Lease, start time.Time, after time.Duration, reason Reason) {
	t.Helper()
	<-l.Ended()
	if took := time.Since(start); took < after || took > after+after/10 || l.Reason() != reason {
		t.Fatalf("ended after %v by %q, want %v and %q", took, l.Reason(), after, reason)
	}
	if left, ok := l.Renew(time.Hour); ok || left != 0 {
		t.Fatal("it was renewed after its end")
	}
}

func TestLeaseIsRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		l := New(Terms{Lease: time.Minute})
		time.Sleep(50 * time.Second)
		if left := l.Left(); left != 10*time.Second {
			t.Fatal(left)
		}
		if left, ok := l.Renew(time.Hour); !ok || left != time.Hour {
			t.Fatal(left, ok)
		}
		time.Sleep(time.Hour - time.Second)
		if left, ok := l.Renew(time.Second); !ok || left != time.Second {
			t.Fatal(left, ok)
		}
		wantEnd(t, l, start, 50*time.Second+time.Hour, Lapsed)
	})
}

func TestShortLeaseEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wantEnd(t, New(Terms{Lease: time.Second}), time.Now(), time.Second, Lapsed)
	})
}

func TestLifetimeIsNotRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		l := New(Terms{Lease: time.Hour, Lifetime: time.Minute})
		time.Sleep(40 * time.Second)
		if left, ok := l.Renew(time.Hour); !ok || left != 20*time.Second {
			t.Fatal(left, ok)
		}
		wantEnd(t, l, start, time.Minute, Lifetime)
	})
}

func TestIdleness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		l := New(Terms{Lease: 24 * time.Hour, Idle: 10 * time.Second})
		time.Sleep(9 * time.Second)
		l.Begin()
		time.Sleep(time.Hour)
		l.Begin()
		l.End()
		time.Sleep(time.Hour)
		l.End()
		time.Sleep(9 * time.Second)
		l.Begin()
		l.End()
		l.Renew(24 * time.Hour) // which is no activity
		wantEnd(t, l, start, 2*time.Hour+28*time.Second, Idle)
	})
}

func TestIdlenessFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wantEnd(t, New(Terms{Lease: time.Hour, Idle: time.Second}), time.Now(), time.Second, Idle)
	})
}

// standstill is a clock that can jump, as all clocks seem to for a process that was frozen.
type standstill struct{ offset atomic.Int64 }

func (s *standstill) now() time.Time { return time.Now().Add(time.Duration(s.offset.Load())) }

func TestStandstillIsHardlyCharged(t *testing.T) {
	for _, jump := range []time.Duration{24 * time.Hour, -24 * time.Hour} {
		for name, notice := range map[string]func(*Lease){
			"tick":    func(*Lease) { time.Sleep(longestStep) },
			"renewal": func(l *Lease) { l.Left() },
			"begin":   func(l *Lease) { l.Begin(); l.End() },
		} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					start := time.Now()
					clock := &standstill{}
					l := begin(Terms{Lease: time.Minute, Idle: time.Minute, Lifetime: time.Hour}, clock.now)
					time.Sleep(10 * time.Second)
					clock.offset.Store(int64(jump))
					notice(l)
					charged := time.Minute - l.Left() - time.Since(start)
					if charged < -longestStep || charged > 2*time.Minute/stepsPerLimit {
						t.Fatalf("%v were charged", charged)
					}
					if left, ok := l.Renew(time.Hour); !ok || left < 50*time.Minute {
						t.Fatal(left, ok)
					}
					<-l.Ended()
					if took := time.Since(start); took < 45*time.Second || l.Reason() != Idle {
						t.Fatal(took, l.Reason())
					}
				})
			})
		}
	}
}

func TestLongTermsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		l := begin(Terms{Lease: time.Hour, Idle: time.Hour, Lifetime: 24 * time.Hour}, func() time.Time {
			reads++
			return time.Now()
		})
		<-l.Ended()
		if most := int(time.Hour/longestStep) + 2; reads > most {
			t.Fatalf("the clock was read %d times, want at most %d", reads, most)
		}
	})
}

func TestRestartCountsFromNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New(Terms{Lease: time.Minute})
		time.Sleep(50 * time.Second)
		l.Begin()
		start := time.Now()
		if left, ok := l.Restart(Terms{Lease: 2 * time.Hour, Idle: 10 * time.Second, Lifetime: time.Hour}); !ok || left != time.Hour {
			t.Fatal(left, ok)
		}
		time.Sleep(time.Minute)
		l.End() // it was under way all along
		time.Sleep(9 * time.Second)
		if l.Reason() != "" {
			t.Fatal(l.Reason())
		}
		wantEnd(t, l, start, 70*time.Second, Idle)
		if left, ok := l.Restart(Terms{Lease: time.Hour}); ok || left != 0 {
			t.Fatal("it was begun anew after its end")
		}
	})
}
