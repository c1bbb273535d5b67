//go:build !linux

package shim

import "syscall"

// signalTree reaches the command's process group; daemons that left it are beyond this platform.
func (c *command) signalTree(signal syscall.Signal) bool {
	c.signalGroup(signal)
	return true
}

func (c *command) stopTree() { c.signalGroup(syscall.SIGSTOP) }
