package firewall

import (
	"strings"
	"testing"
)

func TestArguments(t *testing.T) {
	p, err := parse([]string{"agentic0", "172.18.0.0/16", "203.0.113.1", "198.51.100.53"})
	if err != nil {
		t.Fatal(err)
	}
	if p.bridge != "agentic0" || p.subnet.String() != "172.18.0.0/16" || len(p.resolvers) != 2 {
		t.Fatalf("%+v", p)
	}
}

func TestRefusesArguments(t *testing.T) {
	for _, line := range []string{
		"", "agentic0", "agentic0 172.18.0.0", "agentic0 fd00::/64", "sixteen-letters- 172.18.0.0/16",
		"agentic0 172.18.0.0/16 resolver.test", "agentic0 172.18.0.0/16 2001:db8::53",
	} {
		if p, err := parse(strings.Fields(line)); err == nil {
			t.Errorf("%q was taken: %+v", line, p)
		}
	}
}
