//go:build !linux

package kernel

import "os"

// EraseVariable removes an environment variable of this process.
func EraseVariable(name string) error { return os.Unsetenv(name) }
