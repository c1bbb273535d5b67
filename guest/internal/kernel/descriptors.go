package kernel

import "syscall"

// ShareOfFiles returns one of so many parts of the files that this process may have open; most where that is less.
func ShareOfFiles(parts, most int) int {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) != nil {
		return most
	}
	return int(min(uint64(most), max(uint64(limit.Cur)/uint64(parts), 1)))
}
