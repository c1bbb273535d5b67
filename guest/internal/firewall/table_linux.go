package firewall

import (
	"encoding/binary"
	"net"
	"net/netip"
)

const (
	tableName  = "agentic-isolation"
	refusing   = "refuse"
	domainPort = 53

	// beforeOthers is less than the 0 of iptables, so that what others accept has passed here before.
	beforeOthers = -10
	// sourceNAT is where others translate source addresses, too (NF_IP_PRI_NAT_SRC).
	sourceNAT = 100
)

var linkLocal = netip.MustParsePrefix("169.254.0.0/16")

// table is the transaction that replaces the table:
//
//	table inet agentic-isolation {
//	    chain input   { iifname BRIDGE: DNS to resolvers accept; else refuse }
//	    chain forward { iifname BRIDGE: DNS to resolvers accept; IPv6, 169.254.0.0/16 and oifname BRIDGE refuse }
//	    chain refuse  { TCP reset, else ICMP }
//	    chain postrouting { ip saddr SUBNET oifname != BRIDGE masquerade }
//	}
//
// The translation that gives workspaces their way out is deliberately here and not the engine's: whoever flushes the
// host's tables takes the way out together with what guards it.
func table(p *plan) []message {
	messages := []message{
		{newTable, create, text(1, tableName)},
		{deleteTable, 0, text(1, tableName)},
		{newTable, create, text(1, tableName)},
		chain("input", "filter", hookInput, beforeOthers),
		chain("forward", "filter", hookForward, beforeOthers),
		chain("postrouting", "nat", hookPostrouting, sourceNAT),
		// Refused and not dropped, so that programs which look for metadata do not wait for an answer. TCP by a reset,
		// because the kernel sends few ICMP messages a second.
		{newChain, create, join(text(1, tableName), text(3, refusing))},
		rule(refusing, transportIs(protocolTCP), expression("reject", number(1, rejectByReset))),
		rule(refusing, expression("reject", number(1, rejectByICMP), attribute(2, []byte{prohibited}))),
	}
	for _, name := range []string{"input", "forward"} {
		for _, resolver := range p.resolvers {
			for _, protocol := range []byte{protocolUDP, protocolTCP} {
				messages = append(messages, rule(name,
					interfaceIs(metaInputInterface, p.bridge),
					ipv4, address(destinationOffset, netip.PrefixFrom(resolver, 32)),
					transportIs(protocol),
					load(transportHeader, destinationPortOffset, 2),
					compare(equal, binary.BigEndian.AppendUint16(nil, domainPort)),
					verdict(accept)))
			}
		}
	}
	from := interfaceIs(metaInputInterface, p.bridge)
	return append(messages,
		rule("input", from, refuse),
		rule("forward", from, meta(metaFamily), compare(notEqual, []byte{familyIPv4}), refuse),
		rule("forward", from, ipv4, address(destinationOffset, linkLocal), refuse),
		rule("forward", from, interfaceIs(metaOutputInterface, p.bridge), refuse),
		rule("postrouting", ipv4, address(sourceOffset, p.subnet), interfaceIsNot(metaOutputInterface, p.bridge),
			masquerade),
	)
}

var (
	ipv4       = join(meta(metaFamily), compare(equal, []byte{familyIPv4}))
	masquerade = expression("masq")
	refuse     = jump(refusing)
)

func transportIs(protocol byte) []byte {
	return join(meta(metaTransport), compare(equal, []byte{protocol}))
}

func interfaceIs(key uint32, name string) []byte {
	return join(meta(key), compare(equal, padded(name)))
}

func interfaceIsNot(key uint32, name string) []byte {
	return join(meta(key), compare(notEqual, padded(name)))
}

func padded(name string) []byte {
	value := make([]byte, interfaceNameSize)
	copy(value, name)
	return value
}

// address holds when the IPv4 address at an offset of the header is in a subnet.
func address(offset uint32, subnet netip.Prefix) []byte {
	return join(
		load(networkHeader, offset, 4),
		mask(net.CIDRMask(subnet.Bits(), 32)),
		compare(equal, subnet.Masked().Addr().AsSlice()))
}
