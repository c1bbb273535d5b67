package kernel

import "syscall"

const sysSeccomp = 317

// abis are the interfaces of 64-bit programs, x32's with them, and of 32-bit ones.
var abis = []abi{
	{audit: 0xc000003e, socket: syscall.SYS_SOCKET, socketCall: absent, limit: 302, asyncSetup: syscall.SYS_IO_SETUP},
	{audit: 0xc000003e, socket: absent, socketCall: absent, limit: absent, asyncSetup: 543}, // x32's own number
	{audit: 0x40000003, socket: 359, socketCall: 102, limit: 340, asyncSetup: 245},
}
