// Command agentic-guest runs inside every workspace; docs/guest-protocol.md is its reference.
package main

import (
	"fmt"
	"os"

	"agentic-isolation/guest/internal/bridge"
	"agentic-isolation/guest/internal/firewall"
	"agentic-isolation/guest/internal/link"
	"agentic-isolation/guest/internal/probe"
	"agentic-isolation/guest/internal/resolver"
	"agentic-isolation/guest/internal/server"
	"agentic-isolation/guest/internal/shim"
	"agentic-isolation/guest/internal/traces"
)

// version is set at build time.
var version = "dev"

const usage = `usage: agentic-guest serve            with settings in AGENTIC_GUEST_CONFIG
       agentic-guest bridge SOCKET    copy standard input and output to and from a guest
       agentic-guest sweep DIRECTORY  remove a service's temporary directory when standard input ends
       agentic-guest probe NAME       try to get through what holds this place
       agentic-guest firewall BRIDGE SUBNET [RESOLVER...]
                                      put the workspaces' firewall up on an engine's host
       agentic-guest resolvers        print the name servers that this container was given
       agentic-guest version
`

func main() {
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	switch {
	case len(args) == 1 && args[0] == "serve":
		return server.Main(version)
	case len(args) >= 1 && args[0] == "shim":
		return shim.Main(args[1:])
	case len(args) == 2 && args[0] == "bridge":
		return bridge.Main(args[1])
	case len(args) == 2 && args[0] == "sweep":
		return traces.WatchMain(args[1])
	case len(args) >= 1 && args[0] == "probe":
		return probe.Main(args[1:])
	case len(args) >= 1 && args[0] == "firewall":
		return firewall.Main(args[1:])
	case len(args) == 1 && args[0] == "resolvers":
		return resolver.Main()
	case len(args) == 1 && args[0] == "version":
		fmt.Printf("agentic-guest %s (protocol %d to %d)\n", version, link.LowestVersion, link.HighestVersion)
		return 0
	}
	fmt.Fprint(os.Stderr, usage)
	return 2
}
