package redis

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Key is a secret that entries are encrypted with. IDs tell the keys apart
// while they are rotated; a key keeps its ID for ever.
type Key struct {
	ID     uint32
	Secret []byte // 16, 24 or 32 random bytes
}

// String names the key without its secret.
func (k Key) String() string { return fmt.Sprintf("key %d", k.ID) }

// GoString does what String does: %#v is no way to the secret either.
func (k Key) GoString() string { return k.String() }

// A sealed value, integers big-endian:
//
//	version   1 byte, which no entry that is not sealed begins with
//	key       its ID (4), a hash of its secret (4)
//	salt      12 random bytes
//	nonce     12 random bytes
//	AES-GCM   the value as it was encrypted, and a tag of 16 bytes
//
// Random nonces of 96 bits are good for 2^32 values under one key, and a busy
// cache writes more than that in a week. So every value has a key of its own,
// derived by HMAC-SHA-256 from the secret, the bytes before the salt and the
// salt: nonce and salt together are 192 random bits, which do not repeat in
// 2^80 values. That needs no state and no agreement between processes.
//
// The hash of the secret tells another secret under the same ID, which is a
// mistake in a configuration, from damage.
const (
	sealVersion = 0xe1

	sealHead  = 1 + 4 + sealCheck
	sealCheck = 4
	sealSalt  = 12
	sealNonce = 12
	sealTag   = 16

	// SealOverhead is how many bytes a sealed value is longer than the plain one.
	SealOverhead = sealHead + sealSalt + sealNonce + sealTag
)

var (
	errNotSealed  = errors.New("cachedpg: sealed entry: not encrypted, or by another version")
	errUnknownKey = errors.New("cachedpg: sealed entry: no key of this id")
	errWrongKey   = errors.New("cachedpg: sealed entry: encrypted with another key of the same id")
	errDamaged    = errors.New("cachedpg: sealed entry: damaged, or not written under this name")
)

// Sealer encrypts and authenticates values with AES-GCM. It is immutable and
// safe for concurrent use.
type Sealer struct {
	first sealKey
	keys  map[uint32]sealKey
}

type sealKey struct {
	secret []byte
	head   [sealHead]byte // what values sealed with the key begin with
}

// NewSealer returns a Sealer that seals with the first key and opens what any
// of them sealed. To rotate, first give all processes the new key in second
// place, then in first, then drop the old one. It copies the secrets. Its
// errors name neither the caller nor a secret.
func NewSealer(keys []Key) (*Sealer, error) {
	if len(keys) == 0 {
		return nil, errors.New("no encryption key")
	}
	s := &Sealer{keys: make(map[uint32]sealKey, len(keys))}
	for i, k := range keys {
		if n := len(k.Secret); n != 16 && n != 24 && n != 32 {
			return nil, fmt.Errorf("%v has %d bytes; want 16, 24 or 32", k, n)
		}
		if _, twice := s.keys[k.ID]; twice {
			return nil, fmt.Errorf("%v is there twice", k)
		}
		key := sealKey{secret: append([]byte(nil), k.Secret...)}
		key.head[0] = sealVersion
		binary.BigEndian.PutUint32(key.head[1:], k.ID)
		check := derive(key.secret, []byte("cachedpg: which key is it?"))
		copy(key.head[1+4:], check[:sealCheck])
		s.keys[k.ID] = key
		if i == 0 {
			s.first = key
		}
	}
	return s, nil
}

// Seal appends plain, sealed, to dst. Additional is authenticated, not stored:
// what is opened must come with the same, so that nobody can pass one entry off
// as another. dst must not overlap plain.
func (s *Sealer) Seal(dst, plain, additional []byte) []byte {
	start := len(dst)
	dst = append(dst, s.first.head[:]...)
	var random [sealSalt + sealNonce]byte
	rand.Read(random[:]) // never fails, says its documentation
	dst = append(dst, random[:]...)
	gcm, nonce := s.first.gcm(dst[start:])
	return gcm.Seal(dst, nonce, plain, additional)
}

// Open appends what was sealed to dst, which must not overlap sealed. Unknown
// key, another key of the same ID, and damage are different errors; none says
// what is in the value. Any bytes may be given.
func (s *Sealer) Open(dst, sealed, additional []byte) ([]byte, error) {
	if len(sealed) < SealOverhead || sealed[0] != sealVersion {
		return dst, errNotSealed
	}
	id := binary.BigEndian.Uint32(sealed[1:])
	key, ok := s.keys[id]
	if !ok {
		return dst, fmt.Errorf("%w (%d)", errUnknownKey, id)
	}
	if [sealHead]byte(sealed) != key.head {
		return dst, fmt.Errorf("%w (%d)", errWrongKey, id)
	}
	gcm, nonce := key.gcm(sealed)
	plain, err := gcm.Open(dst, nonce, sealed[sealHead+sealSalt+sealNonce:], additional)
	if err != nil {
		return dst, errDamaged
	}
	return plain, nil
}

// gcm returns the cipher and the nonce of a value that begins with head, salt
// and nonce. The derived key covers the head too: no byte of it can be changed.
func (k *sealKey) gcm(sealed []byte) (gcm cipher.AEAD, nonce []byte) {
	derived := derive(k.secret, sealed[:sealHead+sealSalt])
	block, err := aes.NewCipher(derived[:])
	if err == nil {
		gcm, err = cipher.NewGCM(block)
	}
	if err != nil {
		panic(err) // 32 bytes are a key of AES-256, and its blocks have 16
	}
	return gcm, sealed[sealHead+sealSalt:][:sealNonce]
}

func derive(secret, info []byte) (key [sha256.Size]byte) {
	mac := hmac.New(sha256.New, secret)
	mac.Write(info)
	mac.Sum(key[:0])
	return key
}

// maxKeyFile bounds what LoadKeys reads; a file of keys is tiny.
const maxKeyFile = 1 << 16

// LoadKeys reads keys from a file, as ParseKeys has them. Its errors hold the
// path and no secret.
func LoadKeys(path string) ([]Key, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxKeyFile {
		return nil, fmt.Errorf("%s is no file of keys: larger than %d bytes", path, maxKeyFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	keys, err := ParseKeys(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// ParseKeys reads keys, each as id:secret with the secret in base64, separated
// by commas or line ends. From # to the end of a line is a comment. The errors
// count the keys and never quote them: what is wrong may be a secret.
func ParseKeys(text string) ([]Key, error) {
	var keys []Key
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")
		for field := range strings.SplitSeq(line, ",") {
			if field = strings.TrimSpace(field); field == "" {
				continue
			}
			id, secret, ok := strings.Cut(field, ":")
			n, err := strconv.ParseUint(strings.TrimSpace(id), 10, 32)
			if !ok || err != nil {
				return nil, fmt.Errorf("encryption key number %d is not id:base64, with an id up to %d", len(keys)+1, uint32(1<<32-1))
			}
			// With or without padding: generators differ.
			bytes, err := base64.RawStdEncoding.Strict().DecodeString(strings.TrimRight(strings.TrimSpace(secret), "="))
			if err != nil {
				return nil, fmt.Errorf("the secret of key %d is not base64", n)
			}
			keys = append(keys, Key{ID: uint32(n), Secret: bytes})
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("no encryption key")
	}
	return keys, nil
}
