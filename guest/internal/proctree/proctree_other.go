//go:build !linux

package proctree

import "errors"

// Snapshot fails: this platform has no /proc.
func Snapshot() ([]Proc, error) { return nil, errors.ErrUnsupported }

// Resident is not known on this platform.
func Resident(int) int64 { return 0 }
