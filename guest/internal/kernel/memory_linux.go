package kernel

import (
	"strconv"
	"strings"
	"syscall"
)

const (
	// expendable is how a process that supervises one command is rated, and first how the command is: so many thousandths
	// of the memory that there may be are added to what it uses (proc_pid_oom_score_adj(5)).
	expendable = 500
	first      = "1000"
)

// Victims says whom the kernel kills where memory is used up. Left alone it takes whoever uses most, which is the guest
// where many small processes, or files in memory, have taken the rest.
type Victims struct {
	fd  int
	own string
}

// RankBehind has the kernel kill this process before others, and what it starts by Before first of all. It comes before
// ForbidTracing, which closes the file to its own process. Where it cannot be had, nothing is changed.
func RankBehind() *Victims {
	fd, err := syscall.Open("/proc/self/oom_score_adj", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &Victims{fd: -1}
	}
	text := make([]byte, 16)
	n, err := syscall.Pread(fd, text, 0)
	inherited, malformed := strconv.Atoi(strings.TrimSpace(string(text[:max(n, 0)])))
	if err != nil || malformed != nil {
		syscall.Close(fd)
		return &Victims{fd: -1}
	}
	v := &Victims{fd: fd, own: strconv.Itoa(max(inherited, expendable))}
	v.rate(v.own)
	return v
}

// Before starts a process, which is killed before this one. Processes inherit how they are rated, and may rate themselves.
func (v *Victims) Before(start func() (int, error)) (pid int, err error) {
	v.rate(first)
	defer v.rate(v.own)
	return start()
}

func (v *Victims) rate(score string) {
	if v.fd >= 0 {
		_, _ = syscall.Pwrite(v.fd, []byte(score), 0)
	}
}
