package bench

import (
	"bytes"
	"io"
	"net"
	"slices"
	"testing"

	goredis "github.com/redis/go-redis/v9"

	"github.com/cachedpg/cachedpg/internal/pgtest"
)

// A trip begins with what the program sends first after an answer, however it
// is cut into pieces.
func TestAWireCountsRoundTrips(t *testing.T) {
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	log := &tripLog{}
	w, err := listen('x', server.Addr().String(), log)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	program, err := net.Dial("tcp", w.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	served, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer served.Close()
	send := func(from, to net.Conn) {
		t.Helper()
		if _, err := from.Write([]byte("a")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(to, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		send(program, served)
		send(program, served)
		send(served, program)
		send(served, program)
	}
	if got, want := log.String(), "xxx"; got != want {
		t.Errorf("got trips %q, want %q", got, want)
	}
}

func TestReadCommand(t *testing.T) {
	for _, tc := range []struct {
		name, sent string
		want       []string
	}{
		{"a command", "*2\r\n$3\r\nGET\r\n$1\r\na\r\n", []string{"GET", "a"}},
		{"a line's end in a key", "*1\r\n$4\r\n\r\na\n\r\n", []string{"\r\na\n"}},
		{"cut in an argument", "*2\r\n$3\r\nGET\r\n$5\r\na", nil},
		{"cut in a count", "*2", nil},
		{"a negative length", "*1\r\n$-1\r\n", nil},
		{"no command", "+OK\r\n", nil},
		{"nothing", "", nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := readCommand(bytes.NewReader([]byte(tc.sent)))
			if !slices.Equal(got, tc.want) || (err == nil) != (tc.want != nil) {
				t.Errorf("got %q, %v, want %q", got, err, tc.want)
			}
		})
	}
}

// What MGET and store/redis are measured with is as large as what the driver reads.
func TestTheBareReadsAreAsLargeAsTheDriversOwn(t *testing.T) {
	e := Env{DSN: pgtest.Database(t), Redis: pgtest.Redis(t), Name: t.Name()}
	if err := Load(t.Context(), e.DSN); err != nil {
		t.Fatal(err)
	}
	bare, err := openMGET(e)
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()
	options, err := goredis.ParseURL(e.Redis)
	if err != nil {
		t.Fatal(err)
	}
	w, err := listen('R', options.Addr, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	through := e
	if through.Redis, err = w.in(e.Redis); err != nil {
		t.Fatal(err)
	}
	own, err := openStore(through)
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()

	const id = 42
	if _, err := own.Item(t.Context(), id); err != nil { // a miss
		t.Fatal(err)
	}
	w.forget()
	if _, err := own.Item(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	sizes := func(keys []string) (sizes [][2]int) {
		t.Helper()
		values, err := bare.(*mgetClient).redis.MGet(t.Context(), keys...).Result()
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range values {
			value, _ := v.(string)
			sizes = append(sizes, [2]int{len(keys[i]), len(value)})
		}
		return sizes
	}
	got, want := sizes(w.mget()), sizes(bare.(*mgetClient).keys[id])
	if !slices.EqualFunc(got, want, func(a, b [2]int) bool { return a[0] == b[0] && abs(a[1]-b[1]) <= 2 }) {
		// How long the SELECT took is a number of variable length in the entry.
		t.Errorf("store/redis reads keys and values of %v bytes, the driver of %v", got, want)
	}
}

func abs(n int) int { return max(n, -n) }
