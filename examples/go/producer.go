// Package contactsync is a producer with nothing but the standard library (your usual client's XADD serves as well).
//
//	contacts, err := contactsync.Dial("localhost:6379", "contact-sync")
//	ids, err := contacts.Send([]contactsync.Change{{Owner: "1", Contact: "9", Op: "delete"}})
package contactsync

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// Change is one change; At is Unix milliseconds, 0 for now.
type Change struct {
	Owner, Contact, Op  string
	At                  int64
	Source, Traceparent string
	Lane                string // "bulk" if nobody waits for the change; empty is "live"
}

// Contacts is a connection to the log; it may be shared.
type Contacts struct {
	mutex     sync.Mutex
	conn      net.Conn
	replies   *bufio.Reader
	namespace string
	last      int64 // stamps never go back, also where the machine's clock does
}

// Dial connects to Redis.
func Dial(address, namespace string) (*Contacts, error) {
	conn, err := net.DialTimeout("tcp", address, 2*time.Second)
	if err != nil {
		return nil, err
	}
	return &Contacts{conn: conn, replies: bufio.NewReader(conn), namespace: namespace}, nil
}

// Close ends the connection.
func (c *Contacts) Close() error { return c.conn.Close() }

// PartitionOf is CRC-32 (IEEE) of the owner's UTF-8, modulo the number of partitions.
func PartitionOf(owner string, partitions int) int {
	return int(crc32.ChecksumIEEE([]byte(owner)) % uint32(partitions))
}

// StreamOf gives the key of the change's stream.
func StreamOf(change Change, partitions int, namespace string) (string, error) {
	name, known := map[string]string{"": "events", "live": "events", "bulk": "bulk"}[change.Lane]
	if !known {
		return "", errors.New("lane must be live or bulk")
	}
	return fmt.Sprintf("%s:{%d}:%s", namespace, PartitionOf(change.Owner, partitions), name), nil
}

// EntryOf gives the fields and values of the entry, in their order.
func EntryOf(change Change) ([]string, error) {
	for _, each := range []struct{ name, id string }{{"owner", change.Owner}, {"contact", change.Contact}} {
		if each.id == "" || len(each.id) > 256 || !utf8.ValidString(each.id) || strings.IndexFunc(each.id, unicode.IsControl) >= 0 {
			return nil, errors.New(each.name + " must be 1 to 256 bytes of UTF-8 without control characters")
		}
	}
	if change.Op != "upsert" && change.Op != "delete" {
		return nil, errors.New("op must be upsert or delete")
	}
	if change.At < 1e12 {
		return nil, errors.New("at must be Unix milliseconds")
	}
	entry := []string{"owner", change.Owner, "contact", change.Contact, "op", change.Op, "at", strconv.FormatInt(change.At, 10)}
	if change.Source != "" {
		entry = append(entry, "source", change.Source)
	}
	if change.Traceparent != "" {
		entry = append(entry, "traceparent", change.Traceparent)
	}
	return entry, nil
}

// Send appends the changes, in order and in one round trip, and gives the ids of their entries. What failed may be sent
// again, with the At it was given: said twice, a change is the same.
func (c *Contacts) Send(changes []Change) ([]string, error) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	if err := c.conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(pack("HGET", c.namespace+":config", "partitions")); err != nil {
		return nil, err
	}
	recorded, err := c.reply()
	if err != nil {
		return nil, err
	}
	partitions, err := strconv.Atoi(recorded)
	if err != nil {
		partitions = 64 // none is recorded yet
	}
	var commands []byte
	for _, change := range changes {
		if now := time.Now().UnixMilli(); now > c.last {
			c.last = now
		}
		if change.At == 0 {
			change.At = c.last
		}
		entry, err := EntryOf(change)
		if err != nil {
			return nil, err
		}
		key, err := StreamOf(change, partitions, c.namespace)
		if err != nil {
			return nil, err
		}
		commands = append(commands, pack(append([]string{"XADD", key, "*"}, entry...)...)...)
	}
	if _, err := c.conn.Write(commands); err != nil {
		return nil, err
	}
	var ids []string
	var refused error // every reply is read, so that the next call finds its own
	for range changes {
		id, err := c.reply()
		if err != nil {
			refused = err
		}
		ids = append(ids, id)
	}
	return ids, refused
}

func pack(words ...string) []byte {
	var packed bytes.Buffer
	fmt.Fprintf(&packed, "*%d\r\n", len(words))
	for _, word := range words {
		fmt.Fprintf(&packed, "$%d\r\n%s\r\n", len(word), word)
	}
	return packed.Bytes()
}

func (c *Contacts) reply() (string, error) {
	line, err := c.replies.ReadString('\n')
	if err != nil {
		return "", err
	}
	head := strings.TrimSpace(line[1:])
	switch size, _ := strconv.Atoi(head); {
	case line[0] == '-':
		return "", errors.New(head)
	case line[0] == '$' && size >= 0:
		value := make([]byte, size+2)
		_, err = io.ReadFull(c.replies, value)
		return string(value[:size]), err
	}
	return strings.TrimPrefix(head, "-1"), nil // of what is not there, nothing
}
