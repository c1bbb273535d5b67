//go:build !linux

package shim

const (
	recvFlags = 0
	wNoWait   = 0x20
	peakScale = 1
)
