package firewall

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

const inside = "AGENTIC_TEST_IN_NAMESPACE"

// TestKernelTakesTheTable has a kernel check the table, in a network namespace of the test's own.
func TestKernelTakesTheTable(t *testing.T) {
	if os.Getenv(inside) == "" {
		again := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		again.Env = append(os.Environ(), inside+"=1")
		again.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
		}
		output, err := again.CombinedOutput()
		var failed *exec.ExitError
		if err != nil && !errors.As(err, &failed) {
			t.Skipf("no namespaces here: %v", err)
		}
		if err != nil {
			t.Fatalf("%v\n%s", err, output)
		}
		return
	}
	for range 2 {
		p, err := parse([]string{"agentic0", "172.18.0.0/20", "203.0.113.1", "169.254.169.254"})
		if err != nil {
			t.Fatal(err)
		}
		if err := apply(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := send([]message{rule("no-such-chain", verdict(accept))}); !errors.Is(err, syscall.ENOENT) {
		t.Fatalf("a refusal is told as %v", err)
	}
}
