// Package proctree finds the descendants of a process.
package proctree

// Proc is one process as the kernel described it at some moment.
type Proc struct {
	PID, Parent, Group int
	// State is that of the process's first thread.
	State byte
	// Threads counts those that have not ended, and the first one until the process is reaped.
	Threads int
	// CPUTicks is user and system time of the process and of the children it has waited for, in 1/100 s.
	CPUTicks uint64
}

// Zombie reports whether the process has ended and only waits to be reaped. A first thread that has ended alone looks the
// same, and the process lives on.
func (p Proc) Zombie() bool { return (p.State == 'Z' || p.State == 'X') && p.Threads <= 1 }

// Below returns the descendants of root among all, without root itself.
func Below(all []Proc, root int) []Proc {
	return BelowFunc(all, func(p Proc) bool { return p.Parent == root })
}

// BelowFunc returns the processes that first selects, and all descendants of those.
func BelowFunc(all []Proc, first func(Proc) bool) []Proc {
	children := make(map[int][]int, len(all))
	var found []Proc
	taken := make(map[int]bool)
	for i, p := range all {
		if first(p) {
			found = append(found, p)
			taken[p.PID] = true
		}
		children[p.Parent] = append(children[p.Parent], i)
	}
	for next := 0; next < len(found); next++ {
		for _, i := range children[found[next].PID] {
			if !taken[all[i].PID] {
				taken[all[i].PID] = true
				found = append(found, all[i])
			}
		}
	}
	return found
}

// Living counts the processes that have not ended.
func Living(procs []Proc) int {
	n := 0
	for _, p := range procs {
		if !p.Zombie() {
			n++
		}
	}
	return n
}
