package probe

import (
	"errors"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

var networkAttempts = []attempt{
	{"raw-socket", "open a raw IP socket", openRaw},
	{"packet-socket", "open a packet socket", openPacket},
	{"vsock", "open a socket to a hypervisor", openVsock},
	{"network-config", "change a network interface", configureNetwork},
	{"engine-socket", "reach a container engine's socket", reachEngine},
	{"metadata", "reach a cloud's metadata service", reachMetadata},
	{"outbound", "find a way out to other machines", findWayOut},
}

const (
	dialPatience = 1500 * time.Millisecond
	allProtocols = 0x0300 // ETH_P_ALL in network byte order
	familyVsock  = 40
)

func (t *trial) socket(what string, family, kind, protocol int) {
	fd, err := syscall.Socket(family, kind|syscall.SOCK_CLOEXEC, protocol)
	if err == nil {
		syscall.Close(fd)
	}
	t.answer(what, err)
}

func openRaw(t *trial) {
	t.socket("raw IPv4 socket", syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_ICMP)
	t.socket("raw IPv6 socket", syscall.AF_INET6, syscall.SOCK_RAW, syscall.IPPROTO_ICMPV6)
}

func openPacket(t *trial) {
	t.socket("packet socket", syscall.AF_PACKET, syscall.SOCK_RAW, allProtocols)
	t.socket("packet socket without link headers", syscall.AF_PACKET, syscall.SOCK_DGRAM, allProtocols)
}

func openVsock(t *trial) { t.socket("vsock socket", familyVsock, syscall.SOCK_STREAM, 0) }

type interfaceFlags struct {
	name  [16]byte
	flags uint16
	_     [22]byte
}

// configureNetwork gives the loopback interface the flags that it has.
func configureNetwork(t *trial) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.answer("socket", err)
		return
	}
	defer syscall.Close(fd)
	request := interfaceFlags{}
	copy(request.name[:], "lo")
	if errno := interfaceCall(fd, syscall.SIOCGIFFLAGS, &request); errno != 0 {
		t.answer("read the flags of lo", errno)
		return
	}
	t.answerOr("set the flags of lo", failure(interfaceCall(fd, syscall.SIOCSIFFLAGS, &request)), syscall.ENOTTY)
}

func interfaceCall(fd int, call uintptr, request *interfaceFlags) syscall.Errno {
	_, _, errno := syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(fd), call, uintptr(unsafe.Pointer(request)))
	runtime.KeepAlive(request)
	return errno
}

var engineSockets = []string{
	"/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/podman/podman.sock",
	"/run/crio/crio.sock", "/run/buildkit/buildkitd.sock", "/run/docker/containerd/containerd.sock",
}

func reachEngine(t *trial) {
	for _, path := range engineSockets {
		t.dial("unix", path)
	}
	// Shims of containerd once listened in the abstract namespace, which a shared network lets through (CVE-2020-15257).
	listing, _ := os.ReadFile("/proc/net/unix")
	for _, line := range strings.Split(string(listing), "\n") {
		if _, name, ok := strings.Cut(line, "@/containerd-shim"); ok {
			t.dial("unix", "@/containerd-shim"+strings.TrimRight(name, "@\n"))
		}
	}
}

// dial counts a failure to connect as a refusal: nothing was reached. Only silence may as well mean that nobody is there.
func (t *trial) dial(network, address string) { t.dialBy(&net.Dialer{}, network, address, address) }

func (t *trial) dialBy(dialer *net.Dialer, network, address, words string) {
	dialer.Timeout = dialPatience
	conn, err := dialer.Dial(network, address)
	var timeout net.Error
	switch {
	case err == nil:
		conn.Close()
		t.pass("connect to %s: it answers", words)
	case errors.As(err, &timeout) && timeout.Timeout():
		t.skip("connect to %s: neither an answer nor a refusal", words)
	default:
		t.refuse("connect to %s: %v", words, reason(err))
	}
}

func reachMetadata(t *trial) {
	for _, address := range []string{"169.254.169.254:80", "169.254.170.2:80", "[fd00:ec2::254]:80"} {
		connectTo(t, address)
	}
}

// connectTo tries the way that the routes show, and then every interface, whatever the routes say.
func connectTo(t *trial, address string) {
	t.dial("tcp", address)
	interfaces, _ := net.Interfaces()
	for _, it := range interfaces {
		if it.Flags&net.FlagLoopback != 0 {
			continue
		}
		dialer := &net.Dialer{Control: func(_, _ string, conn syscall.RawConn) error {
			var err error
			failed := conn.Control(func(fd uintptr) { err = syscall.BindToDevice(int(fd), it.Name) })
			return errors.Join(failed, err)
		}}
		t.dialBy(dialer, "tcp", address, address+" by "+it.Name)
	}
}

// findWayOut asks for a route only; connecting a datagram socket sends nothing.
func findWayOut(t *trial) {
	// Addresses from the ranges for documentation (RFC 5737, RFC 3849): a default route alone leads there.
	for _, address := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} {
		conn, err := net.DialTimeout("udp", address, dialPatience)
		if err != nil {
			t.refuse("route to the outside: %v", reason(err))
			continue
		}
		conn.Close()
		t.pass("route to the outside: there is one for addresses such as %s", address)
	}
}
