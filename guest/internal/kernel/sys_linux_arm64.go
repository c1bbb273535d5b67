package kernel

import "syscall"

const sysSeccomp = 277

// abis are the interfaces of 64-bit programs and of 32-bit ones.
var abis = []abi{
	{audit: 0xc00000b7, socket: syscall.SYS_SOCKET, socketCall: absent, limit: 261, asyncSetup: syscall.SYS_IO_SETUP},
	{audit: 0x40000028, socket: 281, socketCall: absent, limit: 369, asyncSetup: 243},
}
