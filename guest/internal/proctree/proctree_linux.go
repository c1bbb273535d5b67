package proctree

import (
	"bytes"
	"os"
	"strconv"
	"syscall"
)

var pageSize = int64(os.Getpagesize())

// Snapshot reads all processes from /proc. Processes come and go meanwhile: whoever must not miss one repeats it.
func Snapshot() ([]Proc, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	procs := make([]Proc, 0, len(names))
	buf := make([]byte, 1024)
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if p, ok := read(pid, buf); ok {
				procs = append(procs, p)
			}
		}
	}
	return procs, nil
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
	if len(f) < 22 {
		return Proc{}, false
	}
	p := Proc{PID: pid, State: f[0][0]}
	p.Parent, _ = strconv.Atoi(string(f[1]))
	for _, field := range f[11:15] {
		ticks, _ := strconv.ParseUint(string(field), 10, 64)
		p.CPUTicks += ticks
	}
	pages, _ := strconv.ParseInt(string(f[21]), 10, 64)
	p.Resident = pages * pageSize
	return p, true
}
