//go:build !linux

package firewall

import "errors"

const interfaceNameSize = 16

func apply(*plan) error { return errors.New("nftables is Linux's") }
