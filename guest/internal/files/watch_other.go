//go:build !linux

package files

import "agentic-isolation/guest/internal/fault"

// Watch is a directory that is being watched.
type Watch struct{ Entry Entry }

// Watch is not to be had on this platform.
func (s *Space) Watch(string, bool) (*Watch, error) {
	return nil, fault.New(fault.Unsupported, "this platform has no watches")
}

// Run is never called.
func (w *Watch) Run(Listener) error { return nil }

// Close does nothing.
func (w *Watch) Close() {}
