package kernel

import (
	"encoding/binary"
	"math"
	"syscall"
	"testing"
)

// run is what the kernel does with a filter.
func run(t *testing.T, program []syscall.SockFilter, number, audit uint32, arguments ...uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.LittleEndian.PutUint32(data, number)
	binary.LittleEndian.PutUint32(data[offsetInterface:], audit)
	for i, argument := range arguments {
		binary.LittleEndian.PutUint64(data[offsetArguments+i*argumentSize:], argument)
	}
	accumulator := uint32(0)
	for at := 0; at < len(program); at++ {
		switch in := program[at]; in.Code {
		case load:
			accumulator = binary.LittleEndian.Uint32(data[in.K:])
		case and:
			accumulator &= in.K
		case ifEqual:
			if accumulator == in.K {
				at += int(in.Jt)
			} else {
				at += int(in.Jf)
			}
		case syscall.BPF_JMP | syscall.BPF_JA:
			at += int(in.K)
		case answer:
			return in.K
		}
	}
	t.Fatal("the filter does not answer")
	return 0
}

func TestRefusals(t *testing.T) {
	const wide, narrow, other = 0xc000003e, 0x40000003, 0xc00000b7
	program := refusals([]abi{
		{audit: wide, socket: 41, socketCall: absent, limit: 302, asyncSetup: 206},
		{audit: narrow, socket: 359, socketCall: 102, limit: 340, asyncSetup: 245},
	})
	for _, c := range []struct {
		what      string
		number    uint32
		audit     uint32
		arguments []uint64
		want      uint32
	}{
		{"io_uring", ioUringEnter, wide, nil, refuse},
		{"io_uring of a 32-bit program", ioUringSetup, narrow, nil, refuse},
		{"io_uring by x32", ioUringSetup | x32, wide, nil, refuse},
		{"vsock", 41, wide, []uint64{familyVsock}, refuse},
		{"another socket", 41, wide, []uint64{2}, allow},
		{"dup of a 32-bit program", 41, narrow, []uint64{familyVsock}, allow},
		{"vsock of a 32-bit program", 359, narrow, []uint64{familyVsock}, refuse},
		{"socketcall for a socket", 102, narrow, []uint64{makeSocket}, refuse},
		{"socketcall for something else", 102, narrow, []uint64{3}, allow},
		{"getuid", 102, wide, []uint64{1}, allow},
		{"own limits", 302, wide, []uint64{0, 7, 1 << 40}, allow},
		{"a look at limits", 302, wide, []uint64{1, 7, 0}, allow},
		{"another process's limits", 302, wide, []uint64{1, 7, 1}, refuse},
		{"the same, from high up", 302, wide, []uint64{1, 7, 1 << 40}, refuse},
		{"the same, by x32", 302 | x32, wide, []uint64{1, 7, 1}, refuse},
		{"renameat of a 32-bit program", 302, narrow, []uint64{1, 7, 1}, allow},
		{"limits by a 32-bit program", 340, narrow, []uint64{1, 7, 1}, refuse},
		{"asynchronous requests", 206, wide, nil, deny},
		{"the same of a 32-bit program", 245, narrow, nil, deny},
		{"an interface that is not known", 206, other, nil, allow},
	} {
		if got := run(t, program, c.number, c.audit, c.arguments...); got != c.want {
			t.Errorf("%s: %#x, not %#x", c.what, got, c.want)
		}
	}
	if len(program) > math.MaxUint16 {
		t.Error("it is too long")
	}
}
