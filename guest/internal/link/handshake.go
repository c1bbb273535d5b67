package link

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"

	"agentic-isolation/guest/internal/frame"
)

// LowestVersion and HighestVersion are the protocol versions that the guest speaks.
const (
	LowestVersion  = 1
	HighestVersion = 4
)

const (
	handshakeLimit = 10 * time.Second
	// handshakePayload is the longest frame taken from a peer that has not proved itself.
	handshakePayload = 4 << 10
	nonceSize        = 16
)

// Identity is what a guest tells and proves of itself.
type Identity struct {
	WorkspaceID string
	BootID      string
	Version     string
	Key         []byte
}

type guestHello struct {
	Versions [2]int `json:"versions"`
	Guest    string `json:"guest"`
	Nonce    string `json:"nonce"`
}

type serviceHello struct {
	Version int    `json:"version"`
	Nonce   string `json:"nonce"`
	Proof   string `json:"proof"`
}

type guestProof struct {
	WorkspaceID string `json:"workspace_id"`
	BootID      string `json:"boot_id"`
	Proof       string `json:"proof"`
}

// shake performs the handshake as far as the peer's proof. It returns the version that the service has chosen and
// what is left: our proof. The decoder may have read frames beyond it.
func shake(conn net.Conn, decoder *frame.Decoder, id *Identity) (version int, conclude func() error, err error) {
	if err := conn.SetDeadline(time.Now().Add(handshakeLimit)); err != nil {
		return 0, nil, err
	}
	decoder.SetLimit(handshakePayload)
	nonce := RandomHex(nonceSize)
	hello := guestHello{Versions: [2]int{LowestVersion, HighestVersion}, Guest: id.Version, Nonce: nonce}
	if err := send(conn, hello); err != nil {
		return 0, nil, err
	}
	f, err := decoder.Next()
	if err != nil {
		return 0, nil, err
	}
	var peer serviceHello
	if f.Type != frame.Hello || json.Unmarshal(f.Payload, &peer) != nil {
		return 0, nil, errors.New("the peer's first frame is not a HELLO")
	}
	if peer.Version < LowestVersion || peer.Version > HighestVersion {
		return 0, nil, fmt.Errorf("the peer speaks version %d, this guest %d to %d", peer.Version, LowestVersion, HighestVersion)
	}
	if raw, err := hex.DecodeString(peer.Nonce); err != nil || len(raw) != nonceSize {
		return 0, nil, fmt.Errorf("the peer's nonce is not %d bytes in hex", nonceSize)
	}
	theirs, err := hex.DecodeString(peer.Proof)
	if err != nil || !hmac.Equal(theirs, proof(id.Key, "service", nonce, peer.Nonce)) {
		return 0, nil, errors.New("the peer does not know the key")
	}
	ours := proof(id.Key, "guest", nonce, peer.Nonce)
	return peer.Version, func() error {
		if err := send(conn, guestProof{WorkspaceID: id.WorkspaceID, BootID: id.BootID, Proof: hex.EncodeToString(ours)}); err != nil {
			return err
		}
		decoder.SetLimit(frame.MaxPayload)
		return conn.SetDeadline(time.Time{})
	}, nil
}

func send(conn net.Conn, hello any) error {
	out, err := frame.AppendJSON(nil, frame.Hello, 0, hello)
	if err != nil {
		return err
	}
	_, err = conn.Write(out)
	return err
}

func proof(key []byte, role, guestNonce, serviceNonce string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(role + ":" + guestNonce + ":" + serviceNonce))
	return mac.Sum(nil)
}

// RandomHex returns n random bytes in hex.
func RandomHex(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
