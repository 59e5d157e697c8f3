package bench

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
)

// wire listens between a program and a server. It writes into its log whenever
// the program sends something after the server has answered: a round trip,
// however many commands travel in it.
type wire struct {
	name     byte // what it writes into the log
	target   string
	listener net.Listener
	log      *tripLog
	wg       sync.WaitGroup

	mu     sync.Mutex // guards the fields below
	conns  map[net.Conn]bool
	closed bool
	sent   []byte // by the program since forget, of all connections
}

// tripLog is the round trips to several servers in their order.
type tripLog struct {
	mu    sync.Mutex
	trips []byte // names of wires
}

func (l *tripLog) add(name byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trips = append(l.trips, name)
}

func (l *tripLog) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.trips = nil
}

func (l *tripLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.trips)
}

// listen begins to listen before target. log may be nil: then what the program
// sends is kept for mget.
func listen(name byte, target string, log *tripLog) (*wire, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	w := &wire{name: name, target: target, listener: listener, log: log, conns: make(map[net.Conn]bool)}
	w.wg.Go(w.accept)
	return w, nil
}

// in returns a server's URL with the wire in its place.
func (w *wire) in(server string) (string, error) {
	u, err := url.Parse(server)
	if err != nil || u.Scheme == "" {
		return "", errors.New("a server must be given by a URL")
	}
	query := u.Query()
	query.Del("host")
	query.Del("port")
	u.RawQuery = query.Encode()
	u.Host = w.listener.Addr().String()
	return u.String(), nil
}

func (w *wire) close() {
	w.listener.Close()
	w.mu.Lock()
	w.closed = true
	for conn := range w.conns {
		conn.Close()
	}
	w.mu.Unlock()
	w.wg.Wait()
}

func (w *wire) accept() {
	for {
		program, err := w.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", w.target)
		if err != nil {
			program.Close()
			continue
		}
		if !w.keep(program, server) {
			return
		}
		t := &turn{}
		w.wg.Go(func() { w.forward(server, program, func(b []byte) { w.asks(t, b) }) })
		w.wg.Go(func() { w.forward(program, server, func([]byte) { t.answered() }) })
	}
}

// keep remembers connections that close must close.
func (w *wire) keep(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, conn := range conns {
		if w.closed {
			conn.Close()
		}
		w.conns[conn] = true
	}
	return !w.closed
}

func (w *wire) forward(to, from net.Conn, see func([]byte)) {
	defer func() {
		to.Close()
		from.Close()
		w.mu.Lock()
		delete(w.conns, from)
		w.mu.Unlock()
	}()
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			see(buf[:n])
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// turn is whose turn it is on a connection.
type turn struct {
	mu    sync.Mutex
	asked bool
}

func (t *turn) answered() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.asked = false
}

func (w *wire) asks(t *turn, b []byte) {
	t.mu.Lock()
	first := !t.asked
	t.asked = true
	t.mu.Unlock()
	if w.log != nil {
		if first {
			w.log.add(w.name)
		}
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = append(w.sent, b...)
}

// forget drops what has been sent so far.
func (w *wire) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = nil
}

// mget returns the keys of the first MGET that was sent since forget.
func (w *wire) mget() []string {
	w.mu.Lock()
	r := bytes.NewReader(bytes.Clone(w.sent))
	w.mu.Unlock()
	for {
		args, err := readCommand(r)
		if err != nil {
			return nil
		}
		if strings.EqualFold(args[0], "MGET") {
			return args[1:]
		}
	}
}

var errCommand = errors.New("not a whole command of Redis' protocol")

// readCommand reads a command in Redis' protocol: *2\r\n$3\r\nGET\r\n$1\r\na\r\n
func readCommand(r *bytes.Reader) ([]string, error) {
	count, err := readCount(r, '*')
	if err != nil || count < 1 {
		return nil, errCommand
	}
	var args []string
	for range count {
		size, err := readCount(r, '$')
		if err != nil || size < 0 || size > r.Len() {
			return nil, errCommand
		}
		arg := make([]byte, size+len("\r\n"))
		if _, err := io.ReadFull(r, arg); err != nil {
			return nil, errCommand
		}
		args = append(args, string(arg[:size]))
	}
	return args, nil
}

func readCount(r *bytes.Reader, sign byte) (int, error) {
	var line []byte
	for !bytes.HasSuffix(line, []byte("\r\n")) {
		b, err := r.ReadByte()
		if err != nil {
			return 0, err
		}
		line = append(line, b)
	}
	if line[0] != sign {
		return 0, errCommand
	}
	return strconv.Atoi(string(line[1 : len(line)-2]))
}
