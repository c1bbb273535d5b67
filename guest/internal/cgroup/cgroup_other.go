//go:build !linux

package cgroup

type counter struct{}

func (*counter) read() (int64, bool) { return 0, false }

// Own returns a group that counts nothing: only Linux has control groups.
func Own() *Group { return &Group{} }
