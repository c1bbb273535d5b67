package proctree

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

var pageSize = int64(os.Getpagesize())

// Snapshot reads all processes from /proc. Processes come and go meanwhile: whoever must not miss one repeats it.
//
// It keeps to plain system calls: an os.File would make the runtime start its poller, which costs a thread.
func Snapshot() ([]Proc, error) {
	dir, err := syscall.Open("/proc", syscall.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer syscall.Close(dir)
	var procs []Proc
	var names []string
	buf := make([]byte, 8<<10)
	line := make([]byte, 1024)
	for {
		n, err := syscall.ReadDirent(dir, buf)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return procs, nil
		}
		_, _, names = syscall.ParseDirent(buf[:n], -1, names[:0])
		for _, name := range names {
			if pid, err := strconv.Atoi(name); err == nil {
				if p, ok := read(pid, line); ok {
					procs = append(procs, p)
				}
			}
		}
	}
}

func read(pid int, buf []byte) (Proc, bool) {
	fd, err := syscall.Open("/proc/"+strconv.Itoa(pid)+"/stat", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return Proc{}, false
	}
	n, err := syscall.Read(fd, buf)
	syscall.Close(fd)
	if err != nil || n <= 0 {
		return Proc{}, false
	}
	return parse(pid, buf[:n])
}

// parse reads a line of proc(5)'s stat, whose second field may hold anything, blanks and brackets included.
func parse(pid int, line []byte) (Proc, bool) {
	i := bytes.LastIndexByte(line, ')')
	if i < 0 {
		return Proc{}, false
	}
	f := bytes.Fields(line[i+1:])
	if len(f) < 18 {
		return Proc{}, false
	}
	p := Proc{PID: pid, State: f[0][0]}
	p.Parent, _ = strconv.Atoi(string(f[1]))
	p.Group, _ = strconv.Atoi(string(f[2]))
	p.Threads, _ = strconv.Atoi(string(f[17]))
	for _, field := range f[11:15] {
		ticks, _ := strconv.ParseUint(string(field), 10, 64)
		p.CPUTicks += ticks
	}
	return p, true
}

// Resident is the resident set of a process in bytes. What stat tells of it is off by megabytes on many processors.
func Resident(pid int) int64 {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
	f := bytes.Fields(raw)
	if err != nil || len(f) < 2 {
		return 0
	}
	pages, _ := strconv.ParseInt(string(f[1]), 10, 64)
	return pages * pageSize
}
