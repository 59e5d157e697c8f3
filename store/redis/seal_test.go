package redis

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func testKey(id uint32, size int) Key {
	return Key{ID: id, Secret: bytes.Repeat([]byte{byte(id), 0x5a}, size/2)}
}

func mustSealer(t testing.TB, keys ...Key) *Sealer {
	t.Helper()
	s, err := NewSealer(keys)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSealRoundTrip(t *testing.T) {
	for _, size := range []int{16, 24, 32} {
		s := mustSealer(t, testKey(1, size))
		for _, plain := range []string{"", "x", strings.Repeat("row", 100_000)} {
			sealed := s.Seal([]byte("before"), []byte(plain), []byte("name"))
			if !bytes.HasPrefix(sealed, []byte("before")) {
				t.Fatal("Seal does not append")
			}
			sealed = sealed[len("before"):]
			if len(sealed) != len(plain)+SealOverhead {
				t.Errorf("%d bytes became %d", len(plain), len(sealed))
			}
			if len(plain) > 3 && bytes.Contains(sealed, []byte("rowrow")) {
				t.Error("the value is in what was sealed")
			}
			got, err := s.Open([]byte("before"), sealed, []byte("name"))
			if err != nil || string(got) != "before"+plain {
				t.Errorf("%d bytes opened to %d, %v", len(plain), len(got), err)
			}
		}
		if a, b := s.Seal(nil, []byte("x"), nil), s.Seal(nil, []byte("x"), nil); bytes.Equal(a, b) {
			t.Error("the same value is sealed the same twice")
		}
	}
}

func TestSealRotation(t *testing.T) {
	old, fresh := testKey(1, 32), testKey(2, 16)
	before, during, after := mustSealer(t, old), mustSealer(t, fresh, old), mustSealer(t, fresh)
	first := before.Seal(nil, []byte("first"), nil)
	second := during.Seal(nil, []byte("second"), nil)
	tests := []struct {
		name   string
		s      *Sealer
		sealed []byte
		want   error
	}{
		{"old key, old value", before, first, nil},
		{"old key, new value", before, second, errUnknownKey},
		{"both keys, old value", during, first, nil},
		{"both keys, new value", during, second, nil},
		{"new key, old value", after, first, errUnknownKey},
		{"new key, new value", after, second, nil},
		{"another key of the same id", mustSealer(t, Key{ID: 1, Secret: bytes.Repeat([]byte{9}, 32)}), first, errWrongKey},
	}
	for _, tt := range tests {
		if _, err := tt.s.Open(nil, tt.sealed, nil); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// Every cut, every flipped bit and another name are noticed, and each is called
// by what it is.
func TestSealDamage(t *testing.T) {
	s := mustSealer(t, testKey(1, 32))
	sealed := s.Seal(nil, []byte("value"), []byte("name"))
	for i := range sealed {
		want := errDamaged
		switch {
		case i < 1:
			want = errNotSealed
		case i < 5:
			want = errUnknownKey
		case i < sealHead:
			want = errWrongKey
		}
		for bit := range 8 {
			damaged := bytes.Clone(sealed)
			damaged[i] ^= 1 << bit
			if _, err := s.Open(nil, damaged, []byte("name")); !errors.Is(err, want) {
				t.Errorf("bit %d of byte %d: %v, want %v", bit, i, err, want)
			}
		}
		if _, err := s.Open(nil, sealed[:i], []byte("name")); err == nil {
			t.Errorf("the first %d bytes can be opened", i)
		}
	}
	if _, err := s.Open(nil, append(bytes.Clone(sealed), 0), []byte("name")); !errors.Is(err, errDamaged) {
		t.Errorf("a trailing byte: %v", err)
	}
	if _, err := s.Open(nil, sealed, []byte("other")); !errors.Is(err, errDamaged) {
		t.Errorf("under another name: %v", err)
	}
	if got, err := s.Open([]byte("before"), sealed, []byte("other")); string(got) != "before" {
		t.Errorf("what was damaged left %q, %v", got, err)
	}
}

func TestNewSealerErrors(t *testing.T) {
	tests := []struct {
		keys []Key
		want string
	}{
		{nil, "no encryption key"},
		{[]Key{{ID: 7, Secret: []byte("hunter2 is short")[:15]}}, "key 7 has 15 bytes; want 16, 24 or 32"},
		{[]Key{testKey(7, 16), testKey(7, 32)}, "key 7 is there twice"},
	}
	for _, tt := range tests {
		if _, err := NewSealer(tt.keys); err == nil || err.Error() != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

func TestSealerKeepsItsOwnSecrets(t *testing.T) {
	key := testKey(1, 32)
	s := mustSealer(t, key)
	sealed := s.Seal(nil, []byte("x"), nil)
	clear(key.Secret)
	if _, err := s.Open(nil, sealed, nil); err != nil {
		t.Error(err)
	}
}

func TestKeyPrintsNoSecret(t *testing.T) {
	key := Key{ID: 3, Secret: []byte("hunter2 hunter2 ")}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
		got := fmt.Sprintf(verb, key)
		if strings.Contains(got, "hunter2") || strings.Contains(got, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("%s prints %q", verb, got)
		}
	}
}

func TestParseKeys(t *testing.T) {
	a, b := testKey(1, 16), testKey(4294967295, 32)
	encode := func(k Key) string { return fmt.Sprintf("%d:%s", k.ID, base64.StdEncoding.EncodeToString(k.Secret)) }
	want := []Key{a, b}
	for _, text := range []string{
		encode(a) + "," + encode(b),
		" " + encode(a) + " ,\t" + encode(b) + ",",
		"# the new one\n" + encode(a) + " # since May\r\n\n" + encode(b) + "\n",
		strings.ReplaceAll(encode(a)+","+encode(b), "=", ""),
		strings.Replace(encode(a), ":", " : ", 1) + "\n" + encode(b),
	} {
		got, err := ParseKeys(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
		path := filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := LoadKeys(path); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("a file of %q: got %v, %v", text, got, err)
		}
	}
}

func TestParseKeysErrors(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", "no encryption key"},
		{"# nothing but a comment", "no encryption key"},
		{"aHVudGVyMmh1bnRlcjJodW50ZXIyCg==", "encryption key number 1 is not id:base64"},
		{"1:AAAA, hunter2:aHVudGVyMg==", "encryption key number 2 is not id:base64"},
		{"-1:AAAA", "encryption key number 1"},
		{"4294967296:AAAA", "encryption key number 1"},
		{"5:hunter2!", "the secret of key 5 is not base64"},
		{"5:AAAAB", "the secret of key 5 is not base64"},
	}
	for _, tt := range tests {
		_, err := ParseKeys(tt.text)
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %s", tt.text, err, tt.want)
		} else if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aHV") {
			t.Errorf("the error holds the secret: %v", err)
		}
	}
	dir := t.TempDir()
	large, bad := filepath.Join(dir, "large"), filepath.Join(dir, "bad")
	for path, text := range map[string]string{large: strings.Repeat("#", maxKeyFile+1), bad: "5:hunter2!"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{large, bad, filepath.Join(dir, "missing"), dir} {
		if _, err := LoadKeys(path); err == nil || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	s := mustSealer(f, testKey(1, 32), testKey(2, 16))
	f.Add(s.Seal(nil, []byte("value"), nil), []byte(nil))                         // what Seal writes
	f.Add(mustSealer(f, testKey(3, 16)).Seal(nil, nil, nil), []byte("name"))      // of a key that is not there
	f.Add(s.first.head[:], []byte(nil))                                           // a head and nothing more
	f.Add(append(s.first.head[:], make([]byte, sealSalt+sealNonce)...), []byte{}) // no tag
	f.Add([]byte("\x02\x00\x00\x00\x00\x00\x00"), []byte(nil))                    // an entry that is not sealed
	f.Fuzz(func(t *testing.T, bytesIn, additional []byte) {
		before := bytes.Clone(bytesIn)
		if plain, err := s.Open(nil, bytesIn, additional); err == nil {
			// Only what was sealed under this name opens, as the seed does.
			if len(plain) != len(bytesIn)-SealOverhead || len(additional) != 0 {
				t.Errorf("forged: %q under %q", bytesIn, additional)
			}
		}
		if !bytes.Equal(bytesIn, before) {
			t.Error("Open changed what it was given")
		}
		// Whatever is sealed opens to itself.
		sealed := s.Seal(nil, bytesIn, additional)
		if plain, err := s.Open(nil, sealed, additional); err != nil || !bytes.Equal(plain, bytesIn) {
			t.Errorf("%q opened to %q, %v", bytesIn, plain, err)
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	s := mustSealer(b, testKey(1, 32))
	plain, name := make([]byte, 1000), []byte("name")
	sealed := s.Seal(nil, plain, name)
	buffer := make([]byte, 0, len(sealed))
	b.Run("Seal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s.Seal(buffer, plain, name)
		}
	})
	b.Run("Open", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Open(buffer, sealed, name); err != nil {
				b.Fatal(err)
			}
		}
	})
}
