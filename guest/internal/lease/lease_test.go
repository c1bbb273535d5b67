package lease

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		l := New(time.Minute)
		time.Sleep(50 * time.Second)
		if !l.Renew(time.Hour) {
			t.Fatal("ended early")
		}
		<-l.Expired()
		if took := time.Since(start); took != 50*time.Second+time.Hour {
			t.Fatal(took)
		}
		if l.Renew(time.Hour) {
			t.Fatal("an ended lease was renewed")
		}
	})
}
