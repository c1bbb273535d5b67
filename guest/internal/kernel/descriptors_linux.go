package kernel

import (
	"os"
	"strconv"
	"syscall"
)

// SealDescriptors keeps what this process has inherited beyond standard input, output and error from its children.
func SealDescriptors() {
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	for _, name := range names {
		if fd, err := strconv.Atoi(name); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
}
