package kernel

import (
	"runtime"
	"sync"
)

// ReserveThreads makes the runtime own n threads from now on. A runtime that is refused a thread dies, so a
// workload that exhausts the limit on processes would take the guest with it if threads were made on demand.
func ReserveThreads(n int) {
	var arrived, done sync.WaitGroup
	arrived.Add(n)
	done.Add(n)
	for range n {
		go func() {
			defer done.Done()
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			arrived.Done()
			arrived.Wait()
		}()
	}
	done.Wait()
}
