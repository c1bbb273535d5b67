package main

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"agentic-isolation/guest/internal/guesttest"
)

var serial atomic.Int64

func runOf(members map[string]any, argv ...string) map[string]any {
	all := map[string]any{"process_id": fmt.Sprintf("p%d", serial.Add(1)), "argv": argv}
	for k, v := range members {
		all[k] = v
	}
	return all
}

func BenchmarkRunTrue(b *testing.B) {
	c := guesttest.Start(b, nil).Connect()
	var took []time.Duration
	for b.Loop() {
		start := time.Now()
		if o := c.Do("run", runOf(nil, "/bin/true")); o.Err != nil {
			b.Fatal(o.Err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
}

func BenchmarkRunTrue16(b *testing.B) {
	c := guesttest.Start(b, nil).Connect()
	var left atomic.Int64
	left.Store(int64(b.N))
	b.ResetTimer()
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for left.Add(-1) >= 0 {
				c.Do("run", runOf(nil, "/bin/true"))
			}
		})
	}
	workers.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "runs/s")
}

func BenchmarkBulkStdout(b *testing.B) {
	for _, lines := range []bool{false, true} {
		b.Run(fmt.Sprintf("lines=%v", lines), func(b *testing.B) {
			c := guesttest.Start(b, nil).Connect()
			const size = 256 << 20
			b.SetBytes(size)
			for b.Loop() {
				ch := c.Open("run", runOf(map[string]any{"lines": lines}, "sh", "-c", fmt.Sprintf("yes 0123456789012345678901234567890123456789 | head -c %d", size)))
				got := 0
				for {
					f, ok := ch.Next()
					if !ok {
						b.Fatal("ended")
					}
					if f.Type == 0x0A {
						break
					}
					if f.Type == 0x05 {
						got += len(f.Payload)
					}
				}
				if got != size {
					b.Fatal(got)
				}
			}
		})
	}
}
