package pgtest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// Wire stands between a client and the server of a database, and keeps what
// passes. It speaks no TLS. It is safe for concurrent use.
type Wire struct {
	DSN string // of the database, by way of the wire

	network, address string // of the server
	listener         net.Listener
	open             sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	conns    []net.Conn
	clients  int
	closed   bool
	texts    []Text
	trips    map[int]int
	warnings []string
}

// Text is SQL that a client has sent, to be run or to be prepared.
type Text struct {
	Client int // counts the connections
	SQL    string
}

// Listen returns a wire to the database that dsn names, whose user needs no
// password. It is cut when the test ends.
func Listen(tb testing.TB, dsn string) *Wire {
	tb.Helper()
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		tb.Fatal("pgtest: the DSN of the test database cannot be read")
	}
	w := &Wire{trips: make(map[int]int)}
	w.network, w.address = pgconn.NetworkAddress(config.Host, config.Port)
	if w.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		tb.Fatal(err)
	}
	query := url.Values{"sslmode": {"disable"}}
	for name, value := range config.RuntimeParams {
		query.Set(name, value)
	}
	through := url.URL{Scheme: "postgres", User: url.UserPassword(config.User, config.Password), Host: w.listener.Addr().String(),
		Path: "/" + config.Database, RawQuery: strings.ReplaceAll(query.Encode(), "+", "%20")}
	w.DSN = through.String()
	w.open.Add(1)
	go w.serve()
	tb.Cleanup(w.close)
	return w
}

func (w *Wire) close() {
	w.listener.Close()
	w.mu.Lock()
	w.closed = true
	for _, c := range w.conns {
		c.Close()
	}
	w.mu.Unlock()
	w.open.Wait()
}

// Texts returns what was sent so far, in the order of each connection.
func (w *Wire) Texts() []Text {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.texts)
}

// Trips returns how often a client has waited for the server.
func (w *Wire) Trips(client int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.trips[client]
}

// Warnings returns the messages of the notices that the server has given so far.
func (w *Wire) Warnings() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.warnings)
}

func (w *Wire) serve() {
	defer w.open.Done()
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial(w.network, w.address)
		if err != nil {
			client.Close()
			continue
		}
		w.mu.Lock()
		if w.closed {
			client.Close()
			server.Close()
		}
		w.conns = append(w.conns, client, server)
		w.clients++
		n := w.clients
		w.open.Add(2)
		w.mu.Unlock()
		go w.pass(client, server, true, func(kind byte, body []byte) { w.sent(n, kind, body) })
		go w.pass(server, client, false, w.answered)
	}
}

// pass hands messages on until one side ends, which ends the other.
func (w *Wire) pass(from, to net.Conn, client bool, keep func(kind byte, body []byte)) {
	defer w.open.Done()
	defer from.Close()
	defer to.Close()
	in := bufio.NewReader(from)
	head := make([]byte, 5)
	if client { // what comes first has no kind
		if err := relay(in, to, head[1:], nil); err != nil {
			return
		}
	}
	for relay(in, to, head, keep) == nil {
	}
}

// relay hands one message on; head is as long as what stands before its body.
func relay(in *bufio.Reader, to io.Writer, head []byte, keep func(kind byte, body []byte)) error {
	if _, err := io.ReadFull(in, head); err != nil {
		return err
	}
	length := binary.BigEndian.Uint32(head[len(head)-4:])
	message := make([]byte, len(head)-4+int(length))
	copy(message, head)
	if _, err := io.ReadFull(in, message[len(head):]); err != nil {
		return err
	}
	if keep != nil {
		keep(head[0], message[len(head):])
	}
	_, err := to.Write(message)
	return err
}

func (w *Wire) sent(client int, kind byte, body []byte) {
	if kind == 'S' || kind == 'Q' { // Sync, Query
		w.mu.Lock()
		w.trips[client]++
		w.mu.Unlock()
	}
	switch kind {
	case 'P': // Parse: the name of the statement comes first
		_, body, _ = bytes.Cut(body, []byte{0})
	case 'Q': // Query
	default:
		return
	}
	sql, _, _ := bytes.Cut(body, []byte{0})
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, Text{client, string(sql)})
}

func (w *Wire) answered(kind byte, body []byte) {
	if kind != 'N' { // NoticeResponse
		return
	}
	for field := range strings.SplitSeq(string(body), "\x00") {
		if message, ok := strings.CutPrefix(field, "M"); ok {
			w.mu.Lock()
			w.warnings = append(w.warnings, message)
			w.mu.Unlock()
		}
	}
}
