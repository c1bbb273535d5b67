package process

import (
	"os"
	"strconv"
	"syscall"
	"unsafe"

	"agentic-isolation/guest/internal/shim"
)

// newTerminal makes a pseudo-terminal whose slave belongs to owner, where there is one.
func newTerminal(size Size, owner *shim.User) (*terminal, error) {
	fd, err := syscall.Open("/dev/ptmx", syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("open /dev/ptmx", err)
	}
	master, err := newFile(fd, "|terminal")
	if err != nil {
		return nil, err
	}
	slave, err := openSlave(master, owner)
	if err == nil {
		err = setSize(master, size)
	}
	if err == nil {
		err = settle(slave)
	}
	t := &terminal{master: master, slave: slave}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func openSlave(master *os.File, owner *shim.User) (*os.File, error) {
	var unlocked, number int32
	err := control(master, syscall.TIOCSPTLCK, unsafe.Pointer(&unlocked))
	if err == nil {
		err = control(master, syscall.TIOCGPTN, unsafe.Pointer(&number))
	}
	if err != nil {
		return nil, err
	}
	name := "/dev/pts/" + strconv.Itoa(int(number))
	fd, err := syscall.Open(name, syscall.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("open "+name, err)
	}
	slave := os.NewFile(uintptr(fd), name)
	if owner != nil {
		if err := syscall.Fchown(fd, int(owner.UID), int(owner.GID)); err != nil {
			slave.Close()
			return nil, os.NewSyscallError("chown "+name, err)
		}
	}
	return slave, nil
}

// settle makes the terminal rub out whole characters; in all else it is as usual from the beginning.
func settle(f *os.File) error {
	t, err := settings(f)
	if err != nil {
		return err
	}
	t.Iflag |= syscall.IUTF8
	return control(f, syscall.TCSETS, unsafe.Pointer(&t))
}

func setSize(master *os.File, size Size) error {
	window := struct{ rows, columns, width, height uint16 }{rows: size.Rows, columns: size.Columns}
	return control(master, syscall.TIOCSWINSZ, unsafe.Pointer(&window))
}

// foreground returns the foreground process group of a terminal; 0 where it is not to be had.
func foreground(master *os.File) int {
	var group int32
	if control(master, syscall.TIOCGPGRP, unsafe.Pointer(&group)) != nil {
		return 0
	}
	return int(group)
}

// endOfFile returns the character that ends a terminal's input, 0 where there is none, and whether it only ends the line
// for now, as that is not empty after the last byte.
func endOfFile(master *os.File, last int) (character byte, again bool) {
	t, err := settings(master)
	if err != nil {
		return 0, false
	}
	return t.Cc[syscall.VEOF], last != none && t.Lflag&syscall.ICANON != 0 && !endsLine(&t, byte(last))
}

// endsLine reports whether a terminal's line is empty after a byte.
func endsLine(t *syscall.Termios, last byte) bool {
	switch {
	case last == '\n', last == '\r' && t.Iflag&syscall.ICRNL != 0:
		return true
	case last == 0: // which stands for characters that there are not
		return false
	}
	for _, at := range []int{syscall.VEOF, syscall.VEOL, syscall.VEOL2, syscall.VKILL} {
		if t.Cc[at] == last {
			return true
		}
	}
	interrupts := last == t.Cc[syscall.VINTR] || last == t.Cc[syscall.VQUIT] || last == t.Cc[syscall.VSUSP]
	return interrupts && t.Lflag&syscall.ISIG != 0
}

// signalKey returns the character by which a terminal sends a signal to its foreground process group; 0 where none does.
func signalKey(master *os.File, signal syscall.Signal) byte {
	t, err := settings(master)
	if err != nil || t.Lflag&syscall.ISIG == 0 {
		return 0
	}
	switch signal {
	case syscall.SIGINT:
		return t.Cc[syscall.VINTR]
	case syscall.SIGQUIT:
		return t.Cc[syscall.VQUIT]
	case syscall.SIGTSTP:
		return t.Cc[syscall.VSUSP]
	}
	return 0
}

func settings(f *os.File) (t syscall.Termios, err error) {
	err = control(f, syscall.TCGETS, unsafe.Pointer(&t))
	return t, err
}

// control is ioctl(2). A closed file is os.ErrClosed.
func control(f *os.File, request uintptr, argument unsafe.Pointer) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	if err := raw.Control(func(fd uintptr) {
		_, _, errno = syscall.Syscall(syscall.SYS_IOCTL, fd, request, uintptr(argument))
	}); err != nil {
		return err
	}
	if errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}
