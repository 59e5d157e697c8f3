package behind

import (
	"encoding/json"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/cachedpg/cachedpg/internal/backend"
	"github.com/cachedpg/cachedpg/keying"
)

// Entry is a statement as it lies in the queue: what PostgreSQL needs to do
// later what it would have done now.
type Entry struct {
	SQL      string
	Mode     int32
	Args     []any
	Settings string // JSON of SettingsOf
}

// wireWrite is its form in Redis. Texts are bytes, because JSON would mend what is
// not UTF-8.
type wireWrite struct {
	Format   int             `json:"f"`
	SQL      []byte          `json:"q"`
	Mode     int32           `json:"m"`
	Args     []wireArg       `json:"a,omitempty"`
	Settings json.RawMessage `json:"s"`
}

// wireArg is an argument with its Go type, by which pgx encodes it.
type wireArg struct {
	Type   string `json:"t"`
	Int    int64  `json:"i,omitempty"`
	Bits   uint64 `json:"u,omitempty"`
	Bytes  []byte `json:"b,omitempty"`
	Offset int    `json:"o,omitempty"`
	Zone   string `json:"z,omitempty"`
}

const queuedFormat = 1

// Encode gives the bytes that go into the queue; false if an argument has a type of which
// they could not be made into the same value again.
func (e Entry) Encode() (payload string, ok bool) {
	w := wireWrite{Format: queuedFormat, SQL: []byte(e.SQL), Mode: e.Mode, Settings: json.RawMessage(e.Settings)}
	for _, v := range e.Args {
		a, ok := encodeArg(v)
		if !ok {
			return "", false
		}
		w.Args = append(w.Args, a)
	}
	b, err := json.Marshal(w)
	return string(b), err == nil
}

func encodeArg(v any) (a wireArg, ok bool) {
	switch v := v.(type) {
	case nil:
		return wireArg{Type: "nil"}, true
	case int64:
		return wireArg{Type: "int64", Int: v}, true
	case int:
		return wireArg{Type: "int", Int: int64(v)}, true
	case int32:
		return wireArg{Type: "int32", Int: int64(v)}, true
	case int16:
		return wireArg{Type: "int16", Int: int64(v)}, true
	case bool:
		if v {
			a.Int = 1
		}
		a.Type = "bool"
		return a, true
	case float64:
		return wireArg{Type: "float64", Bits: math.Float64bits(v)}, true
	case string:
		return wireArg{Type: "string", Bytes: []byte(v)}, true
	case []byte:
		if v == nil {
			return wireArg{Type: "nil bytes"}, true
		}
		return wireArg{Type: "bytes", Bytes: v}, true
	case [16]byte:
		return wireArg{Type: "uuid", Bytes: v[:]}, true
	case time.Time:
		zone, offset := v.Zone()
		return wireArg{Type: "time", Int: v.Unix(), Bits: uint64(v.Nanosecond()), Offset: offset, Zone: zone}, true
	}
	return a, false
}

// Decode reads an entry. Its bytes may be anybody's.
func Decode(payload string) (Entry, error) {
	var w wireWrite
	if err := json.Unmarshal([]byte(payload), &w); err != nil {
		return Entry{}, fmt.Errorf("cachedpg: write-behind: an entry of the queue cannot be read: %w", err)
	}
	if w.Format != queuedFormat {
		return Entry{}, fmt.Errorf("cachedpg: write-behind: an entry of the queue has format %d; this version knows %d", w.Format, queuedFormat)
	}
	q := Entry{SQL: string(w.SQL), Mode: w.Mode, Settings: string(w.Settings)}
	for _, a := range w.Args {
		v, ok := a.value()
		if !ok {
			return q, fmt.Errorf("cachedpg: write-behind: an entry of the queue has an argument of unknown type %.20q", a.Type)
		}
		q.Args = append(q.Args, v)
	}
	return q, nil
}

func (a wireArg) value() (any, bool) {
	switch a.Type {
	case "nil":
		return nil, true
	case "int64":
		return a.Int, true
	case "int":
		return int(a.Int), true
	case "int32":
		return int32(a.Int), true
	case "int16":
		return int16(a.Int), true
	case "bool":
		return a.Int != 0, true
	case "float64":
		return math.Float64frombits(a.Bits), true
	case "string":
		return string(a.Bytes), true
	case "nil bytes":
		return []byte(nil), true
	case "bytes":
		return append([]byte{}, a.Bytes...), true
	case "uuid":
		if len(a.Bytes) == 16 {
			return [16]byte(a.Bytes), true
		}
	case "time":
		if a.Bits < uint64(time.Second) {
			if a.Zone == "UTC" && a.Offset == 0 {
				return time.Unix(a.Int, int64(a.Bits)).UTC(), true
			}
			return time.Unix(a.Int, int64(a.Bits)).In(time.FixedZone(a.Zone, a.Offset)), true
		}
	}
	return nil, false
}

// Settings is what the entries of a session say of it, made once. The zero value is ready for use.
type Settings struct{ made atomic.Pointer[settings] }

type settings struct {
	text     string // JSON of SettingsOf
	role     string
	readable bool
}

// of works without a place to keep it too.
func (k *Settings) of(s *backend.Session) *settings {
	if k != nil {
		if made := k.made.Load(); made != nil {
			return made
		}
	}
	of := SettingsOf(s)
	text, _ := json.Marshal(of) // of strings; it cannot fail
	made := &settings{text: string(text), role: of["role"], readable: s.StandardText && readable(of)}
	if k != nil {
		k.made.Store(made)
	}
	return made
}

// notQueued is the setting without which triggers and foreign keys do not run: where it is not what it is by default, nothing
// is queued.
const notQueued = "session_replication_role"

// SettingsOf gives what a statement's effect may depend on in a session, by name.
func SettingsOf(s *backend.Session) map[string]string {
	of := map[string]string{"role": s.Values[backend.ValueUser], "search_path": s.Values[backend.ValuePath]}
	for i, name := range keying.Settings {
		if v := s.Values[backend.FirstSetting+i]; v != "" && name != notQueued {
			of[name] = v
		}
	}
	return of
}
