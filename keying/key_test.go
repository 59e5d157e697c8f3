package keying

import (
	"bytes"
	"database/sql"
	"database/sql/driver"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cachedpg/cachedpg/parser"
	"github.com/cachedpg/cachedpg/store"
)

type (
	plainInt    int64
	plainString string
	color       int
	loud        string
	valued      struct{ a, b string }
	failing     struct{}
	panicking   struct{}
	items       []struct{ n int }
	pgtypeLike  int64
	structured  struct{ A int }
	userID      [16]byte
)

func (c color) String() string                { return [...]string{"red", "green"}[c] }
func (l loud) String() string                 { return "!" + string(l) }
func (v valued) Value() (driver.Value, error) { return v.a + "," + v.b, nil }
func (failing) Value() (driver.Value, error)  { return nil, errors.New("no") }
func (panicking) Value() (driver.Value, error) {
	panic("no")
}
func (i items) Value() (driver.Value, error) { return fmt.Sprint(len(i)), nil }
func (pgtypeLike) Int64Value() (any, error)  { return nil, nil }

func ptr[T any](v T) *T { return &v }

// TestKeyDistinct has pairwise different arguments that other caches confuse.
func TestKeyDistinct(t *testing.T) {
	utc := time.Date(2020, 1, 2, 3, 4, 5, 6, time.UTC)
	lists := [][]any{
		{}, {nil}, {nil, nil}, {""}, {[]byte(nil)}, {[]byte{}}, {"1"}, {1}, {int64(1)}, {int32(1)}, {int16(1)}, {int8(1)},
		{uint(1)}, {uint8(1)}, {uint64(1)}, {1.0}, {float32(1)}, {true}, {false}, {"true"}, {0}, {0.0}, {math.Copysign(0, -1)},
		{math.NaN()}, {math.Inf(1)}, {plainInt(1)}, {plainString("1")}, {[]byte("1")}, {json.RawMessage("1")},
		{"a b", "c"}, {"a", "b c"}, {"a", "b", "c"}, {"a b c"}, {[]string{"a", "b c"}}, {[]string{"a b", "c"}}, {[]string{"a b c"}},
		{[]string{}}, {[]string(nil)}, {[]int64{}}, {[]int64{1}}, {[]int{1}}, {[]any{1}}, {[]any{int64(1)}}, {[][]string{{"a"}}},
		{ptr("1")}, {(*string)(nil)}, {(*int)(nil)}, {ptr(1)}, {ptr(ptr(1))},
		{utc}, {utc.Add(1)}, {utc.In(time.FixedZone("", 3600))}, {utc.In(time.FixedZone("CET", 3600))}, {utc.AddDate(3000, 0, 0)},
		{utc.AddDate(-3000, 0, 0)}, {time.Time{}}, {utc.Format(time.RFC3339Nano)}, {ptr(utc)}, {time.Second},
		{netip.MustParseAddr("1.2.3.4")}, {netip.MustParseAddr("1.2.3.5")}, {netip.MustParseAddr("::ffff:1.2.3.4")}, {netip.Addr{}},
		{netip.MustParsePrefix("1.2.3.4/24")}, {netip.MustParsePrefix("1.2.3.4/25")}, {netip.Prefix{}}, {"1.2.3.4"}, {net.IPv4(1, 2, 3, 4)},
		{valued{"a", "b,c"}}, {valued{"a,b", "d"}}, {"a,b,c"}, {ptr(valued{"x", "y"})}, {(*valued)(nil)},
		{sql.NullString{}}, {sql.NullString{Valid: true}}, {sql.NullString{String: "a", Valid: true}}, {sql.NullInt64{Int64: 1, Valid: true}},
		{sql.Null[string]{V: "a", Valid: true}}, {sql.Null[int64]{V: 1, Valid: true}},
		{color(0)}, {color(1)}, {loud("a")}, {loud("b")}, {[16]byte{1}}, {userID{1}}, {userID{2}}, {[4]byte{1}}, {[2]int{1, 2}}, {[2]int{2, 1}},
		{items{}}, {items{{1}}}, {[]color{1}}, {[]valued{{"a", "b"}}},
	}
	seen := make(map[store.Key][]any)
	p := New("SELECT $1", nil, nil, nil)
	for _, list := range lists {
		key, _, reason := p.Key(new([32]byte), Values{Args: named(list...)}, nil)
		if reason != NoReason {
			t.Errorf("%#v: %s", list, reason)
			continue
		}
		if other, ok := seen[key]; ok {
			t.Errorf("%#v and %#v share a key", list, other)
		}
		seen[key] = list
		again, _, _ := p.Key(new([32]byte), Values{Args: named(list...)}, nil)
		if again != key {
			t.Errorf("%#v: another key the second time", list)
		}
	}
}

// TestKeyRefuses has arguments without a canonical encoding.
func TestKeyRefuses(t *testing.T) {
	deep := any(1)
	for range 20 {
		deep = []any{deep}
	}
	for _, test := range []struct {
		arg  any
		want Reason
	}{
		{structured{1}, Argument}, {&structured{1}, Argument}, {map[string]int{}, Argument}, {func() {}, Argument},
		{make(chan int), Argument}, {complex(1, 1), Argument}, {failing{}, Argument}, {panicking{}, Argument},
		{[]any{structured{}}, Argument}, {pgtypeLike(1), Argument}, {deep, Argument}, {color(7), Argument},
		{netip.PrefixFrom(netip.MustParseAddr("1.2.3.4"), 99), Argument},
		{"today", ClockInput}, {plainString("NOW"), ClockInput}, {[]byte("yesterday"), ClockInput}, {[]string{"a", "tomorrow"}, ClockInput},
		{ptr("now"), ClockInput}, {loud("now"), ClockInput}, {valued{"now", ""}, ClockInput}, {sql.NullString{String: "now", Valid: true}, ClockInput},
		{json.RawMessage(`{"due": "today"}`), ClockInput}, {[5]byte{'t', 'o', 'd', 'a', 'y'}, ClockInput},
	} {
		p := New("SELECT $1", nil, nil, nil)
		if _, _, got := p.Key(new([32]byte), Values{Args: named(test.arg)}, nil); got != test.want {
			t.Errorf("%#v: got %s, want %s", test.arg, got, test.want)
		}
	}
	args := []driver.NamedValue{{Name: "id", Ordinal: 1, Value: 1}}
	if _, _, got := New("", nil, nil, nil).Key(new([32]byte), Values{Args: args}, nil); got != NamedArgument {
		t.Errorf("a named argument: got %s", got)
	}
}

func TestKeyDependsOnEverything(t *testing.T) {
	v := Values{Args: named("a"), Literals: []parser.Literal{{Kind: parser.String, Text: "b"}}}
	base, _, _ := New("SELECT 1", nil, nil, nil).Key(new([32]byte), v, nil)
	for name, key := range map[string]func() (store.Key, []byte, Reason){
		"session": func() (store.Key, []byte, Reason) { return New("SELECT 1", nil, nil, nil).Key(&[32]byte{1}, v, nil) },
		"text":    func() (store.Key, []byte, Reason) { return New("SELECT 2", nil, nil, nil).Key(new([32]byte), v, nil) },
		"class of literal": func() (store.Key, []byte, Reason) {
			return New("SELECT 1", nil, nil, nil).Key(new([32]byte), Values{Args: v.Args, Literals: []parser.Literal{{Kind: parser.BitString, Text: "b"}}}, nil)
		},
		"place of literal": func() (store.Key, []byte, Reason) {
			return New("SELECT 1", nil, nil, nil).Key(new([32]byte), Values{Args: named("b"), Literals: []parser.Literal{{Kind: parser.String, Text: "a"}}}, nil)
		},
	} {
		if got, _, _ := key(); got == base {
			t.Errorf("the key does not depend on the %s", name)
		}
	}
}

func TestClockInput(t *testing.T) {
	for s, want := range map[string]bool{
		"": false, "no": false, "snow": false, "nowhere": false, "know": false, "yesterdays": false, "tod ay": false, "knowing now": true,
		"now": true, " NOW ": true, "Today": true, "tomorrow 10:00": true, "yesterday\n": true, "2020now": true, "now_": true,
		"{2020-01-01,now}": true, `{"now"}`: true, `{n\ow}`: true, `("n"ow)`: true, "[today,)": true, `["today"]`: true, `{"a":"\u006eow"}`: true,
		"übernow": false, "überünow": true, `\nnow`: true, "n": false, "to": false,
	} {
		if got := clockInput(s); got != want {
			t.Errorf("clockInput(%q) = %v, want %v", s, got, want)
		}
		if got := clockInput([]byte(s)); got != want {
			t.Errorf("clockInput([]byte(%q)) = %v, want %v", s, got, want)
		}
	}
}

// FuzzEncoding decodes what was encoded. What can be decoded is not ambiguous,
// so two lists never share bytes.
func FuzzEncoding(f *testing.F) {
	f.Add([]byte{})                                       // no argument
	f.Add([]byte{0, 1, 0, 0, 0, 0, 0, 0, 0, 1})           // nil and an integer
	f.Add([]byte{4, 3, 'a', ' ', 'b', 4, 1, 'c'})         // strings that would run together
	f.Add([]byte{5, 2, 0, 1, 6, 7, 8})                    // bytes, nil bytes, booleans
	f.Add([]byte{9, 1, 2, 3, 4, 5, 6, 7, 8, 10, 1, 2})    // floats, times
	f.Add([]byte{11, 2, 1, 'a', 1, 'b', 12, 1, 3, 13, 1}) // lists, named types, pointers
	f.Fuzz(func(t *testing.T, data []byte) {
		args := fuzzArgs(data, 0)
		e := encoder{}
		for _, a := range args {
			if !e.value(a) {
				t.Fatalf("no encoding of %#v", a)
			}
		}
		d := decoder{buf: e.buf}
		var got []any
		for len(d.buf) > 0 {
			got = append(got, d.value(t))
		}
		if len(got) != len(args) {
			t.Fatalf("%#v decodes to %#v", args, got)
		}
		for i := range args {
			if a, b := describe(args[i]), describe(got[i]); a != b {
				t.Fatalf("%s decodes to %s", a, b)
			}
		}
	})
}

// fuzzArgs makes arguments of bytes.
func fuzzArgs(data []byte, depth int) (args []any) {
	take := func(n int) []byte {
		b := make([]byte, n)
		data = data[copy(b, data):]
		return b
	}
	for len(data) > 0 {
		switch kind := take(1)[0] % 16; kind {
		case 0:
			args = append(args, nil)
		case 1:
			args = append(args, int64(binary.BigEndian.Uint64(take(8))))
		case 2:
			args = append(args, int(binary.BigEndian.Uint64(take(8))))
		case 3:
			args = append(args, int32(binary.BigEndian.Uint32(take(4))))
		case 4:
			args = append(args, string(take(int(take(1)[0])%8)))
		case 5:
			args = append(args, take(int(take(1)[0])%8))
		case 6:
			args = append(args, []byte(nil))
		case 7, 8:
			args = append(args, kind == 7)
		case 9:
			args = append(args, math.Float64frombits(binary.BigEndian.Uint64(take(8))))
		case 10:
			b := take(6)
			zone := time.FixedZone(string(b[4:5]), int(int8(b[5]))*60)
			args = append(args, time.Unix(int64(int32(binary.BigEndian.Uint32(b))), int64(b[4])).In(zone))
		case 11:
			list := []string{}
			for range take(1)[0] % 4 {
				list = append(list, string(take(int(take(1)[0])%4)))
			}
			args = append(args, list)
		case 12:
			args = append(args, plainInt(take(1)[0]))
		case 13:
			args = append(args, ptr(string(take(int(take(1)[0])%4))))
		case 15:
			args = append(args, [16]byte(take(16)))
		case 14:
			if depth > 2 {
				return args
			}
			inner := fuzzArgs(take(int(take(1)[0])%16), depth+1)
			args = append(args, append([]any{}, inner...))
		}
	}
	return args
}

// describe prints a value with its types, all the way down.
func describe(v any) string {
	switch v := v.(type) {
	case []any:
		s := "["
		for _, x := range v {
			s += describe(x) + ";"
		}
		return s + "]"
	case *string:
		return "*" + describe(*v)
	case time.Time:
		zone, offset := v.Zone()
		return fmt.Sprintf("time %d %d %q %d", v.Unix(), v.Nanosecond(), zone, offset)
	case float64:
		return fmt.Sprintf("float64 %x", math.Float64bits(v))
	}
	return fmt.Sprintf("%T %#v", v, v)
}

// decoder reads what encoder wrote, for the types that fuzzArgs makes.
type decoder struct{ buf []byte }

func (d *decoder) take(n int) []byte {
	b := d.buf[:n]
	d.buf = d.buf[n:]
	return b
}

func (d *decoder) fixed() uint64 { return binary.BigEndian.Uint64(d.take(8)) }

func (d *decoder) bytes() []byte {
	n, used := binary.Uvarint(d.buf)
	d.take(used)
	return bytes.Clone(d.take(int(n)))
}

func (d *decoder) value(t testing.TB) any {
	switch code := d.take(1)[0]; code {
	case codeNil:
		return nil
	case codeInt64:
		return int64(d.fixed())
	case codeInt:
		return int(d.fixed())
	case codeInt32:
		return int32(d.fixed())
	case codeString:
		return string(d.bytes())
	case codeBytes:
		return d.bytes()
	case codeNilBytes:
		return []byte(nil)
	case codeFalse, codeTrue:
		return code == codeTrue
	case codeFloat64:
		return math.Float64frombits(d.fixed())
	case codeTime:
		sec := int64(d.fixed())
		nsec := binary.BigEndian.Uint32(d.take(4))
		offset := int32(binary.BigEndian.Uint32(d.take(4)))
		return time.Unix(sec, int64(nsec)).In(time.FixedZone(string(d.bytes()), int(offset)))
	case codeUUID:
		return [16]byte(d.take(16))
	case codeOther:
		name := string(d.bytes())
		code := d.take(1)[0]
		switch {
		case name == "[].string" && code == codeList:
			list := []string{}
			for _, v := range d.list(t) {
				list = append(list, v.(string))
			}
			return list
		case name == "[]interface {}" && code == codeList:
			return append([]any{}, d.list(t)...)
		case name == "*.string" && code == codePointer:
			return ptr(d.value(t).(string))
		case name == "github.com/cachedpg/cachedpg/keying.plainInt" && code == codeSigned:
			return plainInt(d.fixed())
		}
		t.Fatalf("type %s, code %d", name, code)
	default:
		t.Fatalf("code %d", code)
	}
	return nil
}

func (d *decoder) list(t testing.TB) (list []any) {
	n, used := binary.Uvarint(d.buf)
	d.take(used)
	for range n {
		list = append(list, d.value(t))
	}
	return list
}

func named(args ...any) []driver.NamedValue {
	list := make([]driver.NamedValue, len(args))
	for i, a := range args {
		list[i] = driver.NamedValue{Ordinal: i + 1, Value: a}
	}
	return list
}

func TestReasons(t *testing.T) {
	seen := make(map[string]bool)
	for _, r := range Reasons() {
		if seen[r.String()] || r.String() == "" || r.Words() == "" || r.Remedy() == "" {
			t.Errorf("reason %d: name %q, words %q, remedy %q", r, r, r.Words(), r.Remedy())
		}
		seen[r.String()] = true
	}
	if got := Reason(255).String(); got != "unknown" {
		t.Errorf("an unknown reason is called %q", got)
	}
}

func TestNilSnapshot(t *testing.T) {
	p, _ := planFor(t, nil, "SELECT * FROM users")
	if p.Reason != CatalogUnavailable || p.Writes {
		t.Errorf("a read without a schema: %+v", p)
	}
	p, _ = planFor(t, nil, "UPDATE users SET name = 'x'")
	if tags := p.WriteTags(nil, Values{}); !p.Writes || !p.Asks || len(tags) != 0 {
		t.Errorf("a write without a schema: %+v, tags %v", p, tags)
	}
}

func TestAllocations(t *testing.T) {
	snapshot := testSchema(t)
	read, _ := planFor(t, snapshot, "SELECT * FROM users WHERE id = $1")
	write, _ := planFor(t, snapshot, "UPDATE users SET name = $2 WHERE id = $1")
	inlined, literals := planFor(t, snapshot, "SELECT * FROM users WHERE id = 5 AND email = 'a@x'")
	var session [32]byte
	buf := make([]byte, 0, 512)
	tags := make([]store.Tag, 0, 16)
	v := Values{Args: named(int64(5), "name", []byte("b"), true, 1.5, nil, int32(1), time.Now())}
	for name, f := range map[string]func(){
		"ReadTags":             func() { read.ReadTags(tags[:0], v) },
		"ReadTags of literals": func() { inlined.ReadTags(tags[:0], Values{Literals: literals}) },
		"WriteTags":            func() { write.WriteTags(tags[:0], v) },
		"Key":                  func() { read.Key(&session, v, buf) },
		"Key of literals":      func() { inlined.Key(&session, Values{Literals: literals}, buf) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func BenchmarkReadTags(b *testing.B) {
	p, _ := planFor(b, testSchema(b), "SELECT * FROM users WHERE id = $1")
	v, tags := Values{Args: named(int64(5))}, make([]store.Tag, 0, 16)
	b.ReportAllocs()
	for b.Loop() {
		p.ReadTags(tags[:0], v)
	}
}

func BenchmarkWriteTags(b *testing.B) {
	p, _ := planFor(b, testSchema(b), "UPDATE users SET name = $2 WHERE id = $1")
	v, tags := Values{Args: named(int64(5), "x")}, make([]store.Tag, 0, 16)
	b.ReportAllocs()
	for b.Loop() {
		p.WriteTags(tags[:0], v)
	}
}

func BenchmarkKey(b *testing.B) {
	p, _ := planFor(b, testSchema(b), "SELECT * FROM users WHERE id = $1")
	var session [32]byte
	buf := make([]byte, 0, 512)
	for name, args := range map[string][]driver.NamedValue{
		"int":  named(int64(5)),
		"four": named(int64(5), "some text", true, time.Unix(1, 0)),
		"uuid": named([16]byte{1}),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p.Key(&session, Values{Args: args}, buf)
			}
		})
	}
}

func BenchmarkNew(b *testing.B) {
	snapshot := testSchema(b)
	sql := "SELECT u.name, p.title FROM posts p JOIN users u ON u.id = p.user_id WHERE p.id = $1"
	scanned, _ := parser.Scan(sql)
	statements, err := parser.Parse(sql, scanned.Literals)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		New(scanned.Text, statements, snapshot, testPath)
	}
}
