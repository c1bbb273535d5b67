package shim

import (
	"syscall"
	"testing"

	"agentic-isolation/guest/internal/fault"
)

func TestArgumentsThatAreTooLongAreTheRequestsFault(t *testing.T) {
	for _, err := range []error{syscall.E2BIG, syscall.ENAMETOOLONG} {
		if found := startFault("/bin/sh", nil, err); found.Reason != fault.BadRequest {
			t.Errorf("%v is told as %v", err, found)
		}
	}
}
