package resolver

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
)

const configuration = "/etc/resolv.conf"

// Main prints the name servers that this container was given and that others can use, too, one a line: IPv4, and not
// loopback. It returns the exit code.
func Main() int {
	content, err := os.ReadFile(configuration)
	if err != nil {
		fmt.Fprintf(os.Stderr, "agentic-guest: resolvers: %v\n", err)
		return 1
	}
	for _, address := range usable(string(content)) {
		fmt.Println(address)
	}
	return 0
}

func usable(content string) []netip.Addr {
	var found []netip.Addr
	for line := range strings.Lines(content) {
		words := strings.Fields(line)
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		address, err := netip.ParseAddr(words[1])
		if err == nil && address.Is4() && !address.IsLoopback() {
			found = append(found, address)
		}
	}
	return found
}
