//go:build !linux

package kernel

// DefaultSignals does nothing here.
func DefaultSignals() {}
