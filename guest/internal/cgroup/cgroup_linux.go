package cgroup

import (
	"bytes"
	"os"
	"strconv"
)

// maxFile is more than any of the files read here holds.
const maxFile = 4 << 10

// counter is one number in one file of a control group. It stays open: reading it costs one system call.
type counter struct {
	file *os.File
	// key is what stands before the number in a file of several.
	key string
	// unit turns the number into what is told.
	unit float64
}

// place is where a counter is found, in either version of control groups.
type place struct {
	path, key string
	unit      float64
}

const (
	root        = "/sys/fs/cgroup/"
	nanoseconds = 1e-3
	// secondWord is the key of a number that follows another one on its line.
	secondWord = " "
)

var (
	memoryPlaces = []place{{"memory.current", "", 1}, {"memory/memory.usage_in_bytes", "", 1}}
	cpuPlaces    = []place{{"cpu.stat", "usage_usec ", 1}, {"cpuacct/cpuacct.usage", "", nanoseconds}}
	pidsPlaces   = []place{{"pids.current", "", 1}, {"pids/pids.current", "", 1}}
	killPlaces   = []place{{"memory.events", "oom_kill ", 1}, {"memory/memory.oom_control", "oom_kill ", 1}}
	memoryLimits = []place{{"memory.max", "", 1}, {"memory/memory.limit_in_bytes", "", 1}}
	pidsLimits   = []place{{"pids.max", "", 1}, {"pids/pids.max", "", 1}}
	cpuQuotas    = []place{{"cpu.max", "", 1}, {"cpu/cpu.cfs_quota_us", "", 1}}
	cpuPeriods   = []place{{"cpu.max", secondWord, 1}, {"cpu/cpu.cfs_period_us", "", 1}}
	refusePlaces = []place{{"pids.events", "max ", 1}, {"pids/pids.events", "max ", 1}}
)

// Own opens the control group of the workspace. Only where the guest is the first process of a place is it the
// workspace's own; elsewhere, and where nothing is mounted, the group counts nothing.
func Own() *Group {
	g := &Group{}
	if os.Getpid() != 1 {
		return g
	}
	g.memory, g.cpu, g.pids = open(memoryPlaces), open(cpuPlaces), open(pidsPlaces)
	g.kills, g.refusals = open(killPlaces), open(refusePlaces)
	g.memoryLimit, g.pidsLimit = open(memoryLimits), open(pidsLimits)
	g.cpuQuota, g.cpuPeriod = open(cpuQuotas), open(cpuPeriods)
	return g
}

func open(places []place) *counter {
	for _, p := range places {
		if file, err := os.Open(root + p.path); err == nil {
			return &counter{file, p.key, p.unit}
		}
	}
	return nil
}

func (c *counter) read() (int64, bool) {
	if c == nil {
		return 0, false
	}
	var buffer [maxFile]byte
	n, _ := c.file.ReadAt(buffer[:], 0)
	for line := range bytes.Lines(buffer[:n]) {
		line = bytes.TrimSpace(line)
		number, ok := bytes.CutPrefix(line, []byte(c.key))
		if c.key == secondWord {
			_, number, ok = bytes.Cut(line, []byte(secondWord))
		}
		if ok {
			first, _, _ := bytes.Cut(number, []byte(" "))
			value, err := strconv.ParseInt(string(first), 10, 64)
			return scaled(value, c.unit), err == nil // "max" is no number
		}
	}
	return 0, false
}

// scaled leaves whole numbers as they are, however large.
func scaled(value int64, unit float64) int64 {
	if unit == 1 {
		return value
	}
	return int64(float64(value) * unit)
}
