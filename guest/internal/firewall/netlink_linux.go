package firewall

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"syscall"
)

// Numbers of linux/netfilter.h, linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h. Those of attributes stand
// where they are used.
const (
	netfilter  = 12 // NETLINK_NETFILTER
	subsystem  = 10 // NFNL_SUBSYS_NFTABLES
	batchBegin = 0x10
	batchEnd   = 0x11
	nestedFlag = 0x8000

	newTable    = 0
	deleteTable = 2
	newChain    = 3
	newRule     = 6
	create      = syscall.NLM_F_CREATE
	follow      = syscall.NLM_F_APPEND

	familyInet      = 1
	familyIPv4      = 2
	hookInput       = 1
	hookForward     = 2
	hookPostrouting = 4
	protocolTCP     = 6
	protocolUDP     = 17

	verdictRegister = 0
	register        = 1
	accept          = 1
	jumping         = 0xfffffffd
	rejectByReset   = 1
	rejectByICMP    = 2
	prohibited      = 3 // in the numbering that IPv4 and IPv6 share
	equal           = 0
	notEqual        = 1

	metaInputInterface    = 6
	metaOutputInterface   = 7
	metaFamily            = 15
	metaTransport         = 16
	interfaceNameSize     = 16
	networkHeader         = 1
	sourceOffset          = 12
	destinationOffset     = 16
	transportHeader       = 2
	destinationPortOffset = 2

	answerPatience = 5 // seconds
)

// message is one step of a transaction.
type message struct {
	kind  uint16
	flags uint16
	body  []byte
}

func chain(name, kind string, hook uint32, priority int32) message {
	return message{newChain, create, join(
		text(1, tableName),
		text(3, name),
		nested(4, number(1, hook), number(2, uint32(priority))),
		text(7, kind))}
}

func rule(chain string, expressions ...[]byte) message {
	return message{newRule, create | follow, join(text(1, tableName), text(2, chain), nested(4, expressions...))}
}

func expression(name string, data ...[]byte) []byte {
	return nested(1, text(1, name), nested(2, data...))
}

func meta(key uint32) []byte { return expression("meta", number(1, register), number(2, key)) }

func load(header, offset, size uint32) []byte {
	return expression("payload", number(1, register), number(2, header), number(3, offset), number(4, size))
}

func compare(operation uint32, value []byte) []byte {
	return expression("cmp", number(1, register), number(2, operation), nested(3, attribute(1, value)))
}

func mask(bits []byte) []byte {
	return expression("bitwise", number(1, register), number(2, register), number(3, uint32(len(bits))),
		nested(4, attribute(1, bits)), nested(5, attribute(1, make([]byte, len(bits)))))
}

func verdict(code uint32) []byte {
	return expression("immediate", number(1, verdictRegister), nested(2, nested(2, number(1, code))))
}

func jump(chain string) []byte {
	return expression("immediate", number(1, verdictRegister), nested(2, nested(2, number(1, jumping), text(2, chain))))
}

func attribute(kind uint16, value []byte) []byte {
	data := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)))
	data = append(binary.NativeEndian.AppendUint16(data, kind), value...)
	return append(data, make([]byte, -len(data)&3)...)
}

func nested(kind uint16, parts ...[]byte) []byte { return attribute(kind|nestedFlag, join(parts...)) }

func text(kind uint16, value string) []byte { return attribute(kind, append([]byte(value), 0)) }

func number(kind uint16, value uint32) []byte {
	return attribute(kind, binary.BigEndian.AppendUint32(nil, value))
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

func apply(p *plan) error { return send(table(p)) }

// send carries a transaction out: all of it or nothing.
func send(messages []message) error {
	fd, err := syscall.Socket(syscall.AF_NETLINK, syscall.SOCK_RAW|syscall.SOCK_CLOEXEC, netfilter)
	if err != nil {
		return fmt.Errorf("netfilter: %w", err)
	}
	defer syscall.Close(fd)
	patience := syscall.Timeval{Sec: answerPatience}
	if err := syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_RCVTIMEO, &patience); err != nil {
		return err
	}
	if err := syscall.Sendto(fd, batch(messages), 0, &syscall.SockaddrNetlink{Family: syscall.AF_NETLINK}); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return awaitAnswers(fd, len(messages))
}

// batch numbers the messages from 1.
func batch(messages []message) []byte {
	data := packet(batchBegin, 0, 0, 0, subsystem, nil)
	for i, m := range messages {
		data = append(data, packet(subsystem<<8|m.kind, m.flags|syscall.NLM_F_ACK, uint32(i+1), familyInet, 0, m.body)...)
	}
	return append(data, packet(batchEnd, 0, uint32(len(messages)+1), 0, subsystem, nil)...)
}

func packet(kind, flags uint16, sequence uint32, family byte, resource uint16, body []byte) []byte {
	order := binary.NativeEndian
	data := order.AppendUint32(nil, uint32(syscall.NLMSG_HDRLEN+4+len(body)))
	data = order.AppendUint16(data, kind)
	data = order.AppendUint16(data, flags|syscall.NLM_F_REQUEST)
	data = order.AppendUint32(data, sequence)
	data = order.AppendUint32(data, 0)
	data = append(data, family, 0)
	return append(binary.BigEndian.AppendUint16(data, resource), body...)
}

// awaitAnswers returns when the kernel has acknowledged every message, which it does when all are in force.
func awaitAnswers(fd, count int) error {
	buffer := make([]byte, 1<<16)
	for acknowledged := 0; acknowledged < count; {
		n, _, err := syscall.Recvfrom(fd, buffer, 0)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("nftables does not answer: %w", err)
		}
		answers, err := syscall.ParseNetlinkMessage(bytes.Clone(buffer[:n]))
		if err != nil {
			return err
		}
		for _, answer := range answers {
			if answer.Header.Type != syscall.NLMSG_ERROR || len(answer.Data) < 4 {
				continue
			}
			if code := int32(binary.NativeEndian.Uint32(answer.Data)); code != 0 {
				return fmt.Errorf("nftables refuses step %d: %w", answer.Header.Seq, syscall.Errno(-code))
			}
			acknowledged++
		}
	}
	return nil
}
