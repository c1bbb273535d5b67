package probe

import (
	"fmt"
	"os"
	"slices"
)

type attempt struct {
	name  string
	title string
	try   func(*trial)
}

var attempts = slices.Concat(
	fileSystemAttempts, kernelFileAttempts, identityAttempts, kernelAttempts, networkAttempts, processAttempts, guestAttempts,
)

func run(name string, args []string) int {
	switch name {
	case "list":
		for _, a := range attempts {
			fmt.Printf("%s\t%s\n", a.name, a.title)
		}
		return 0
	case "connect", "find-environ":
		if len(args) != 1 {
			return Main(nil)
		}
		return perform(name, func(t *trial) { withArgument[name](t, args[0]) })
	}
	if bomb, ok := bombs[name]; ok {
		return explode(name, bomb, args)
	}
	if tool, ok := tools[name]; ok {
		if err := tool(args); err != nil {
			return broken(err)
		}
		return 0
	}
	for _, a := range attempts {
		if a.name == name {
			return perform(name, a.try)
		}
	}
	return broken(fmt.Errorf("there is no %q; `agentic-guest probe list` names all", name))
}

var withArgument = map[string]func(*trial, string){"connect": connectTo, "find-environ": findEnviron}

func perform(name string, try func(*trial)) int {
	t := &trial{}
	defer t.cleanUp()
	try(t)
	return show(name, t.report())
}

// selfRun is how probes start this program again.
const selfRun = "/proc/self/exe"

func isRoot() bool { return os.Geteuid() == 0 }
