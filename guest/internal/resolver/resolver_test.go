package resolver

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

const reaction = 10 * time.Second

// listen takes a port that is free for both kinds: the kernel chooses one that is so for packets.
func listen(t *testing.T, upstream ...string) *Relay {
	t.Helper()
	for {
		r, err := Listen("127.0.0.1:0", upstream)
		if err == nil {
			return r
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatal(err)
		}
	}
}

// upstream answers every query with its own words, over UDP and TCP.
func upstream(t *testing.T, words string) string {
	t.Helper()
	listening := listen(t)
	t.Cleanup(listening.Close)
	packets, streams := listening.packets, listening.streams
	go func() {
		buffer := make([]byte, maxMessage)
		for {
			n, client, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo([]byte("no answer to any query"), client)
			_, _ = packets.WriteTo(append(buffer[:n:n], words...), client)
		}
	}()
	go func() {
		for {
			conn, err := streams.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				time.Sleep(acceptPause)
				continue
			}
			query, _ := io.ReadAll(conn)
			_, _ = conn.Write(append(query, words...))
			conn.Close()
		}
	}()
	return packets.LocalAddr().String()
}

// nobody is an address where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.LocalAddr().String()
}

func relay(t *testing.T, upstream ...string) *Relay {
	t.Helper()
	r := listen(t, upstream...)
	ended := make(chan struct{})
	go func() { r.Serve(); close(ended) }()
	t.Cleanup(func() {
		r.Close()
		<-ended
	})
	return r
}

func dial(t *testing.T, network, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(reaction))
	return conn
}

func TestPassesPacketsOnToTheFirstThatAnswers(t *testing.T) {
	r := relay(t, nobody(t), upstream(t, " from the second"), upstream(t, " from the third"))
	for i := range 3 {
		query := fmt.Sprintf("query %d", i)
		conn := dial(t, "udp4", r.Address())
		if _, err := conn.Write([]byte(query)); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 100)
		n, err := conn.Read(answer)
		if err != nil || string(answer[:n]) != query+" from the second" {
			t.Fatalf("%q %v", answer[:n], err)
		}
	}
}

func TestPassesStreamsOn(t *testing.T) {
	r := relay(t, nobody(t), upstream(t, " from the second"))
	conn := dial(t, "tcp4", r.Address())
	query := bytes.Repeat([]byte("much "), 20_000)
	if _, err := conn.Write(query); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil || string(answer) != string(query)+" from the second" {
		t.Fatalf("%d bytes, %v", len(answer), err)
	}
}

func TestStreamEndsWhereNobodyAnswers(t *testing.T) {
	conn := dial(t, "tcp4", relay(t, nobody(t)).Address())
	if answer, err := io.ReadAll(conn); len(answer) > 0 {
		t.Fatalf("%q %v", answer, err)
	}
}

// A guest without a free descriptor for a moment takes streams again afterwards.
func TestStreamsAfterDescriptorsHaveRunOut(t *testing.T) {
	r := relay(t, upstream(t, " from afar"))
	askByStream(t, r)
	address, err := net.ResolveTCPAddr("tcp4", r.Address())
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 3, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	err = syscall.Connect(fd, &syscall.SockaddrInet4{Port: address.Port, Addr: [4]byte(address.IP.To4())})
	time.Sleep(100 * time.Millisecond) // so long it cannot be accepted
	if failed := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	syscall.Close(fd) // whoever is asked answers one after the other
	askByStream(t, r)
}

func askByStream(t *testing.T, r *Relay) {
	t.Helper()
	conn := dial(t, "tcp4", r.Address())
	if _, err := conn.Write([]byte("query")); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if answer, err := io.ReadAll(conn); err != nil || string(answer) != "query from afar" {
		t.Fatalf("%q %v", answer, err)
	}
}

func TestConfiguredNameServers(t *testing.T) {
	found := usable("# a comment\nsearch corp.test\nnameserver 127.0.0.53\nnameserver 203.0.113.1\n" +
		"nameserver\t198.51.100.53 trailing\nnameserver 2001:db8::53\nnameserver\nnameserver nonsense\noptions edns0\n")
	if fmt.Sprint(found) != "[203.0.113.1 198.51.100.53]" {
		t.Fatal(found)
	}
}
