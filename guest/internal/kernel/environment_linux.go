package kernel

import (
	"os"
	"strings"
	"syscall"
	"unsafe"
)

// EraseVariable overwrites an environment variable where the kernel keeps it for /proc/PID/environ, and removes it.
// Non-dumpable processes are not read on Linux, but gVisor does not know them.
//
// The kernel lays the environment behind the arguments, string after string (execve(2)), and os.Args still points there.
func EraseVariable(name string) error {
	if len(os.Args) > 0 {
		last := os.Args[len(os.Args)-1]
		next := unsafe.Add(unsafe.Pointer(unsafe.StringData(last)), len(last)+1)
		for _, entry := range syscall.Environ() { // copies, in the kernel's order
			if !lies(entry, next) {
				break // the environment was changed since: nothing more is safe to touch
			}
			if strings.HasPrefix(entry, name+"=") {
				clear(unsafe.Slice((*byte)(next), len(entry)))
			}
			next = unsafe.Add(next, len(entry)+1)
		}
	}
	return os.Unsetenv(name)
}

// lies tells whether a string with its NUL is at an address. It reads no further than the first difference.
func lies(s string, at unsafe.Pointer) bool {
	for i := range len(s) {
		if *(*byte)(unsafe.Add(at, i)) != s[i] {
			return false
		}
	}
	return *(*byte)(unsafe.Add(at, len(s))) == 0
}
