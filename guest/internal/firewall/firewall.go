// Package firewall decides, in the network namespace of an engine's host, what the workspaces on a bridge reach.
//
// It is no part of a workspace: `agentic-guest firewall` runs once in a container of its own, with the host's network
// and CAP_NET_ADMIN, and leaves one nftables table behind. Rules there hold for every runtime, and nothing that runs in
// a workspace can go around them, neither by a socket that is bound to an interface nor by raw packets.
package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// plan is what the table is made from.
type plan struct {
	// bridge is the name of the workspaces' interface on the host.
	bridge string
	// subnet is the workspaces' addresses.
	subnet netip.Prefix
	// resolvers are the name servers that they use, wherever those are.
	resolvers []netip.Addr
}

const usage = "usage: agentic-guest firewall BRIDGE SUBNET [RESOLVER...]"

// Main puts the table up, in place of an earlier one, in one transaction. It returns the exit code.
func Main(args []string) int {
	p, err := parse(args)
	if err == nil {
		err = apply(p)
	}
	if err == nil {
		err = checkBridged()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "agentic-guest: firewall: %v\n", err)
		return 1
	}
	return 0
}

var bridgedSettings = []string{
	"/proc/sys/net/bridge/bridge-nf-call-iptables",
	"/proc/sys/net/bridge/bridge-nf-call-ip6tables",
}

// checkBridged makes sure that the table sees packets between the ports of a bridge, which no router handles.
func checkBridged() error {
	for _, path := range bridgedSettings {
		switch content, err := os.ReadFile(path); {
		case errors.Is(err, os.ErrNotExist):
			return errors.New("packets between workspaces are not filtered: load the kernel module br_netfilter")
		case err != nil:
			return err
		case strings.TrimSpace(string(content)) != "1":
			return fmt.Errorf("packets between workspaces are not filtered: set %s to 1", path)
		}
	}
	return nil
}

func parse(args []string) (*plan, error) {
	if len(args) < 2 {
		return nil, errors.New(usage)
	}
	p := &plan{bridge: args[0]}
	if p.bridge == "" || len(p.bridge) >= interfaceNameSize {
		return nil, fmt.Errorf("%q is no name of an interface", p.bridge)
	}
	var err error
	if p.subnet, err = netip.ParsePrefix(args[1]); err != nil || !p.subnet.Addr().Is4() {
		return nil, fmt.Errorf("%q is no IPv4 subnet", args[1])
	}
	for _, arg := range args[2:] {
		address, err := netip.ParseAddr(arg)
		if err != nil || !address.Is4() {
			return nil, fmt.Errorf("%q is no IPv4 address", arg)
		}
		p.resolvers = append(p.resolvers, address)
	}
	return p, nil
}
