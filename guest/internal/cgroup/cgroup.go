// Package cgroup reads what the kernel counts in a workspace's control group.
package cgroup

// Group is a workspace's control group, of version 1 or 2. What it does not count is absent.
type Group struct {
	memory, cpu, pids, kills, refusals          *counter
	memoryLimit, cpuQuota, cpuPeriod, pidsLimit *counter
}

// Limits is what the workspace may use. What is not limited, or not to be seen from inside, is absent.
type Limits struct {
	Memory    *int64 `json:"memory_bytes,omitempty"`
	CPUMillis *int64 `json:"cpu_millis,omitempty"`
	Pids      *int64 `json:"pids,omitempty"`
}

// unlimited is beyond what any limit says; version 1 writes the largest number of pages in place of none.
const unlimited = 1 << 60

// Limits reads what the workspace may use.
func (g *Group) Limits() Limits {
	limits := Limits{Memory: limit(g.memoryLimit), Pids: limit(g.pidsLimit)}
	quota, period := limit(g.cpuQuota), limit(g.cpuPeriod)
	if quota != nil && period != nil {
		millis := *quota * 1000 / *period
		limits.CPUMillis = &millis
	}
	return limits
}

func limit(c *counter) *int64 {
	if value, ok := c.read(); ok && value > 0 && value < unlimited {
		return &value
	}
	return nil
}

// Usage is what the workspace uses now.
type Usage struct {
	Memory    *int64 `json:"memory_bytes,omitempty"`
	CPUMicros *int64 `json:"cpu_us,omitempty"`
	// Pids counts processes and threads.
	Pids *int64 `json:"pids,omitempty"`
}

// Usage reads what the workspace uses now.
func (g *Group) Usage() Usage {
	return Usage{optional(g.memory), optional(g.cpu), optional(g.pids)}
}

func optional(c *counter) *int64 {
	if value, ok := c.read(); ok {
		return &value
	}
	return nil
}

// Hits counts how often the workspace has met its limits since it was made.
type Hits struct {
	// OutOfMemory counts processes that the kernel killed for want of memory.
	OutOfMemory int64
	// Pids counts processes and threads that the kernel refused to make.
	Pids int64
}

// Hits reads how often the limits were met. The kernel counts a kill before it carries it out.
func (g *Group) Hits() Hits {
	kills, _ := g.kills.read()
	refusals, _ := g.refusals.read()
	return Hits{kills, refusals}
}
