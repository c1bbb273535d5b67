//go:build !linux

package process

import (
	"os"
	"syscall"

	"agentic-isolation/guest/internal/fault"
	"agentic-isolation/guest/internal/shim"
)

var errNoTerminals error = fault.New(fault.Unsupported, "terminal: there are none on this platform")

func newTerminal(Size, *shim.User) (*terminal, error) { return nil, errNoTerminals }

func setSize(*os.File, Size) error { return errNoTerminals }

func foreground(*os.File) int { return 0 }

func endOfFile(*os.File, int) (character byte, again bool) { return 0, false }

func signalKey(*os.File, syscall.Signal) byte { return 0 }
