//go:build !linux

package kernel

// DefaultSignals does nothing here.
func DefaultSignals() {}

// IgnoreRest does nothing here.
func IgnoreRest() {}
