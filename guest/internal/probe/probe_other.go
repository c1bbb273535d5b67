//go:build !linux

package probe

import "runtime"

func run(name string, _ []string) int {
	if name == "list" {
		return 0
	}
	return show(name, Report{Outcome: NotApplicable, Detail: "probes are for Linux, this is " + runtime.GOOS})
}
