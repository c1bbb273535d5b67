package main

import (
	"os"
	"testing"

	"agentic-isolation/guest/internal/guesttest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	guesttest.RemoveBinary()
	os.Exit(code)
}
