package store

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"
)

func codecEntries() []*Entry {
	wide := &Entry{Rows: 2}
	for i := range 1664 { // PostgreSQL's MaxTupleAttributeNumber
		wide.Columns = append(wide.Columns, Column{Name: strings.Repeat("c", i%64), Type: uint32(i)})
	}
	wide.Data = strings.Repeat("\xff\xff\xff\xff", 2*1664)
	return []*Entry{
		{},
		{Rows: 3}, // SELECT FROM t: rows without columns
		{Columns: []Column{{Name: "id", Type: 20}}},
		{
			Columns: []Column{{"id", 16384, 1, 20, 8, -1, 1}, {"täg", math.MaxUint32, math.MaxUint16, math.MaxUint32, -1, math.MinInt32, -1}},
			Rows:    2,
			Data:    string(AppendValue(AppendValue(AppendValue(AppendValue(nil, []byte{0, 1}), nil), []byte{}), []byte("x\x00y"))),
		},
		wide,
		{Rows: 1, Took: 1500 * time.Microsecond, Expires: momentAt(time.UnixMilli(1_800_000_000_123))},
		{Rows: 1, Took: math.MaxInt64 / 1000 * 1000, Expires: momentAt(time.UnixMilli(math.MaxInt64 / 1_000_000))},
	}
}

func TestCodecRoundTrip(t *testing.T) {
	for i, e := range codecEntries() {
		if !e.Valid() {
			t.Errorf("entry %d is not valid", i)
		}
		encoded := AppendEntry([]byte("before"), e)
		if !bytes.HasPrefix(encoded, []byte("before")) {
			t.Errorf("entry %d: AppendEntry does not append", i)
		}
		encoded = encoded[len("before"):]
		got, err := DecodeEntry(encoded)
		if err != nil {
			t.Errorf("entry %d: %v", i, err)
			continue
		}
		if !reflect.DeepEqual(got, e) {
			t.Errorf("entry %d: got %+v, want %+v", i, got, e)
		}
		// The entry must not change with the caller's buffer.
		for j := range encoded {
			encoded[j] ^= 0xff
		}
		if !reflect.DeepEqual(got, e) {
			t.Errorf("entry %d shares memory with what it was decoded from", i)
		}
	}
}

// What the encoding has no room for: fractions, and times that mean nothing.
func TestCodecTimes(t *testing.T) {
	tests := []struct {
		took, wantTook       time.Duration
		expires, wantExpires Moment
	}{
		{1999 * time.Nanosecond, time.Microsecond, momentAt(time.Unix(0, 5_999_999)), momentAt(time.UnixMilli(5))},
		{-time.Second, 0, momentAt(time.UnixMilli(-1)), 0},
		{0, 0, 0, 0},
		{math.MaxInt64, math.MaxInt64 / 1000 * 1000, momentAt(time.Unix(1, 0)), momentAt(time.Unix(1, 0))},
	}
	for _, tt := range tests {
		got, err := DecodeEntry(AppendEntry(nil, &Entry{Took: tt.took, Expires: tt.expires}))
		if err != nil || got.Took != tt.wantTook || got.Expires != tt.wantExpires {
			t.Errorf("%v and %v: got %+v, %v", tt.took, tt.expires, got, err)
		}
	}
}

func TestDecodeEntryStringSharesMemory(t *testing.T) {
	encoded := string(AppendEntry(nil, testEntry(1000)))
	e, err := DecodeEntryString(encoded)
	if err != nil {
		t.Fatal(err)
	}
	begin := uintptr(unsafe.Pointer(unsafe.StringData(encoded)))
	if at := uintptr(unsafe.Pointer(unsafe.StringData(e.Data))); at < begin || at >= begin+uintptr(len(encoded)) {
		t.Error("the data is a copy")
	}
}

// A change of this golden needs a new codecVersion: two versions of the program
// may share one store.
func TestCodecGolden(t *testing.T) {
	e := &Entry{Columns: []Column{{"id", 16384, 1, 20, 8, -1, 1}}, Rows: 2, Data: "\x00\x00\x00\x01x\xff\xff\xff\xff",
		Took: 300 * time.Microsecond, Expires: momentAt(time.UnixMilli(1_800_000_000_000))}
	got := string(AppendEntry(nil, e))
	want := "\x02\x01\x02id\x00\x00\x40\x00\x00\x01\x00\x00\x00\x14\x00\x08\xff\xff\xff\xff\x00\x01\x02\xac\x02\x80\xa0\xf1\xc2\xb1\x34\x09\x00\x00\x00\x01x\xff\xff\xff\xff"
	want += string(binary.BigEndian.AppendUint32(nil, crc32.Checksum([]byte(want), castagnoli)))
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Every cut and every flipped bit is noticed.
func TestCodecDamage(t *testing.T) {
	encoded := AppendEntry(nil, codecEntries()[3])
	for i := range encoded {
		if _, err := DecodeEntry(encoded[:i]); err == nil {
			t.Errorf("the first %d bytes are an entry", i)
		}
		for bit := range 8 {
			damaged := bytes.Clone(encoded)
			damaged[i] ^= 1 << bit
			if _, err := DecodeEntry(damaged); err == nil {
				t.Errorf("bit %d of byte %d does not matter", bit, i)
			}
		}
	}
	if _, err := DecodeEntry(append(encoded, 0)); err == nil {
		t.Error("a trailing byte does not matter")
	}
}

// seal gives body the checksum that lets it through to the decoder proper.
func seal(body []byte) []byte {
	return binary.BigEndian.AppendUint32(bytes.Clone(body), crc32.Checksum(body, castagnoli))
}

// hostile bodies, checksum to be added
var hostile = []struct {
	why  string
	body string
}{
	{"nothing at all", ""},
	{"the version before", "\x01\x00\x00\x00"},
	{"a version to come", "\x03\x00\x00\x00\x00\x00"},
	{"more columns than bytes", "\x02\xff\xff\xff\xff\x0f"},
	{"a count of eleven bytes", "\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"},
	{"a count beyond 64 bits", "\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"},
	{"a count in more bytes than it needs", "\x02\x80\x00\x00\x00\x00\x00"},
	{"a name longer than the rest", "\x02\x01\x7f" + strings.Repeat("x", 30)},
	{"more rows than data", "\x02\x01\x00" + strings.Repeat("\x00", columnFixed) + "\x02\x00\x00\x04\xff\xff\xff\xff"},
	{"rows without columns, for ever", "\x02\x00\xff\xff\xff\xff\x07\x00\x00\x00"},
	{"nothing after the rows", "\x02\x00\x01"},
	{"took longer than a Duration", "\x02\x00\x00\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x00\x00"},
	{"expires after the end of time", "\x02\x00\x00\x00\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01\x00"},
	{"data without columns", "\x02\x00\x01\x00\x00\x04\xff\xff\xff\xff"},
	{"data longer than the rest", "\x02\x00\x00\x00\x00\x7f"},
	{"a value longer than the data", "\x02\x01\x00" + strings.Repeat("\x00", columnFixed) + "\x01\x00\x00\x05\x7f\xff\xff\xff\x00"},
	{"a value of negative length", "\x02\x01\x00" + strings.Repeat("\x00", columnFixed) + "\x01\x00\x00\x04\xff\xff\xff\xfe"},
	{"half a value at the end", "\x02\x01\x00" + strings.Repeat("\x00", columnFixed) + "\x01\x00\x00\x06\xff\xff\xff\xff\x00\x00"},
	{"bytes after the data", "\x02\x00\x00\x00\x00\x00\x00"},
}

func TestCodecHostile(t *testing.T) {
	for _, h := range hostile {
		if e, err := DecodeEntry(seal([]byte(h.body))); err == nil {
			t.Errorf("%s: decoded to %+v", h.why, e)
		}
	}
}

// TestCodecAllocation holds the worst cases against the promise of a small
// multiple.
func TestCodecAllocation(t *testing.T) {
	const columns = 100_000 // of the least size: they take most memory per byte
	least := binary.AppendUvarint([]byte{codecVersion}, columns)
	least = append(least, make([]byte, columns*columnMin)...)
	least = append(least, 0, 0, 0, 0)
	promised := append(binary.AppendUvarint([]byte{codecVersion}, 1<<20), make([]byte, 1000)...)
	for name, body := range map[string][]byte{"the least columns": least, "columns that are not there": promised} {
		encoded := seal(body)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := DecodeEntry(encoded)
		runtime.ReadMemStats(&after)
		if got := after.TotalAlloc - before.TotalAlloc; got > 4*uint64(len(encoded))+1000 {
			t.Errorf("%s: %d bytes decoded with %d bytes allocated (%v)", name, len(encoded), got, err)
		}
	}
}

func TestValuesOfGarbage(t *testing.T) {
	for _, data := range []string{"", "\x00", "\xff\xff\xff", "\x80\x00\x00\x00", "\x7f\xff\xff\xff", "\x00\x00\x00\x02x", "\xff\xff\xff\xff\x00"} {
		values := (&Entry{Data: data}).Values()
		for range 3 {
			values.Next()
		}
		if _, _, ok := values.Next(); ok {
			t.Errorf("%q has four values", data)
		}
	}
}

func FuzzDecodeEntry(f *testing.F) {
	for _, e := range codecEntries() { // what AppendEntry writes, without its checksum
		encoded := AppendEntry(nil, e)
		f.Add(encoded[:len(encoded)-4])
	}
	for _, h := range hostile { // what it never writes
		f.Add([]byte(h.body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		DecodeEntry(body) // the checksum is wrong, as for any garbage
		encoded := seal(body)
		e, err := DecodeEntry(encoded)
		if err != nil {
			return
		}
		if !e.Valid() {
			t.Errorf("decoded to an entry that is not valid: %+v", e)
		}
		if e.Size() > entryBytes+4*len(body) {
			t.Errorf("%d bytes decoded to %d", len(body), e.Size())
		}
		if again := AppendEntry(nil, e); !bytes.Equal(again, encoded) {
			t.Errorf("encodes to %q, was %q", again, encoded)
		}
	})
}

func FuzzValues(f *testing.F) {
	f.Add("\x00\x00\x00\x01x\xff\xff\xff\xff", 1, 2) // one row of two values, the second NULL
	f.Add("\x7f\xff\xff\xffx", 1, 1)                 // a length beyond the end
	f.Add("\xff\xff\xff\xff", 1<<62, 4)              // a row count that overflows
	f.Fuzz(func(t *testing.T, data string, rows, columns int) {
		if columns < 0 || columns > 1664 {
			return
		}
		e := &Entry{Columns: make([]Column, columns), Rows: rows, Data: data}
		valid := e.Valid()
		n := 0
		var again []byte
		for values := e.Values(); ; n++ {
			v, null, ok := values.Next()
			if !ok {
				break
			}
			if null {
				again = AppendValue(again, nil)
			} else {
				again = AppendValue(again, append([]byte{}, v...))
			}
		}
		if !strings.HasPrefix(data, string(again)) {
			t.Errorf("values of %q are those of %q", data, again)
		}
		if valid && columns > 0 && (n != rows*columns || string(again) != data) {
			t.Errorf("%q is valid with %d values, has %d", data, rows*columns, n)
		}
	})
}

func BenchmarkDecodeEntry(b *testing.B) {
	encoded := AppendEntry(nil, testEntry(1000))
	b.Run("bytes", func(b *testing.B) {
		b.SetBytes(int64(len(encoded)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeEntry(encoded); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("string", func(b *testing.B) {
		text := string(encoded)
		b.SetBytes(int64(len(encoded)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := DecodeEntryString(text); err != nil {
				b.Fatal(err)
			}
		}
	})
}
