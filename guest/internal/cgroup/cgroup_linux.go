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
)

var (
	memoryPlaces = []place{{"memory.current", "", 1}, {"memory/memory.usage_in_bytes", "", 1}}
	cpuPlaces    = []place{{"cpu.stat", "usage_usec ", 1}, {"cpuacct/cpuacct.usage", "", nanoseconds}}
	pidsPlaces   = []place{{"pids.current", "", 1}, {"pids/pids.current", "", 1}}
	killPlaces   = []place{{"memory.events", "oom_kill ", 1}, {"memory/memory.oom_control", "oom_kill ", 1}}
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
		if number, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte(c.key)); ok {
			value, err := strconv.ParseInt(string(number), 10, 64)
			return int64(float64(value) * c.unit), err == nil
		}
	}
	return 0, false
}
